package main

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

const keptLines = 20_000

type logLine struct {
	at   time.Time
	text string
}

// lineLog is what a container printed, as far as it is kept, and a signal for those who follow it.
type lineLog struct {
	mu      sync.Mutex
	lines   []logLine
	dropped int // lines that are no longer kept
	partial []byte
	changed chan struct{} // closed at the next line
}

func newLineLog() *lineLog { return &lineLog{changed: make(chan struct{})} }

// Write adds data; a line is logged when its end is there.
func (l *lineLog) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, data...)
	for {
		line, rest, found := bytes.Cut(l.partial, []byte{'\n'})
		if !found {
			return len(data), nil
		}
		l.add(string(bytes.TrimSuffix(line, []byte{'\r'})))
		l.partial = rest
	}
}

// close logs what came after the last end of line.
func (l *lineLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.partial) > 0 {
		l.add(string(l.partial))
	}
}

func (l *lineLog) add(text string) {
	if len(l.lines) == keptLines {
		l.lines = slices.Delete(l.lines, 0, keptLines/4)
		l.dropped += keptLines / 4
	}
	l.lines = append(l.lines, logLine{time.Now(), text})
	close(l.changed)
	l.changed = make(chan struct{})
}

// after returns the lines from the given one on, counted from the container's start, the number of the line
// after them, and what is closed when that one comes.
func (l *lineLog) after(first int) (lines []logLine, next int, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	start := max(first-l.dropped, 0)
	return slices.Clone(l.lines[start:]), l.dropped + len(l.lines), l.changed
}

// logOptions are those of k8s.io/api/core/v1 PodLogOptions that the API server passes on to a kubelet.
type logOptions struct {
	follow, timestamps bool
	since              time.Time
	tail, limit        int // -1: no limit
}

func readLogOptions(query url.Values, now time.Time) logOptions {
	number := func(name string) int {
		if n, err := strconv.Atoi(query.Get(name)); err == nil {
			return n
		}
		return -1
	}
	o := logOptions{tail: number("tailLines"), limit: number("limitBytes")}
	o.follow, _ = strconv.ParseBool(query.Get("follow"))
	o.timestamps, _ = strconv.ParseBool(query.Get("timestamps"))
	o.since, _ = time.Parse(time.RFC3339, query.Get("sinceTime"))
	if seconds := number("sinceSeconds"); seconds >= 0 {
		o.since = now.Add(-time.Duration(seconds) * time.Second)
	}
	return o
}

// choose returns the lines that the options ask for out of those already there.
func (o logOptions) choose(lines []logLine) []logLine {
	first := slices.IndexFunc(lines, func(line logLine) bool { return !line.at.Before(o.since) })
	if first < 0 {
		return nil
	}
	lines = lines[first:]
	if o.tail >= 0 && o.tail < len(lines) {
		lines = lines[len(lines)-o.tail:]
	}
	return lines
}

func (o logOptions) format(lines []logLine) []byte {
	var text []byte
	for _, line := range lines {
		if o.timestamps {
			text = append(line.at.UTC().AppendFormat(text, time.RFC3339Nano), ' ')
		}
		text = append(append(text, line.text...), '\n')
	}
	return text
}

// serveLogs prints the log, and with follow what comes, until the container, the client or limitBytes ends it.
func serveLogs(w http.ResponseWriter, r *http.Request, c *container) {
	if previous, _ := strconv.ParseBool(r.URL.Query().Get("previous")); previous {
		http.Error(w, "previous terminated container not found", http.StatusBadRequest)
		return
	}
	options := readLogOptions(r.URL.Query(), time.Now())
	w.Header().Set("Content-Type", "text/plain")
	lines, next, changed := c.log.after(0)
	lines = options.choose(lines)
	for ended := false; ; lines, next, changed = c.log.after(next) {
		text := options.format(lines)
		if options.limit >= 0 {
			text = text[:min(options.limit, len(text))]
			options.limit -= len(text)
		}
		if _, err := w.Write(text); err != nil || options.limit == 0 || !options.follow || ended {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-c.ctx.Done():
			ended = true // once more, for its last lines
		case <-r.Context().Done():
			return
		}
	}
}
