package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// atOnce is how many lines a container without a command prints before the first second is over, so that
// --tail has something to choose from.
const atOnce = 5

// container is one container's main process: what it printed, who is attached, and how it ended.
type container struct {
	spec    corev1.Container
	folder  string
	env     []string
	ctx     context.Context // over when the container has ended
	log     *lineLog
	stdin   *io.PipeWriter // nil unless the spec asks for stdin
	resize  chan remotecommand.TerminalSize
	started metav1.Time

	mu       sync.Mutex
	attached map[io.Writer]struct{}
	ended    *corev1.ContainerStateTerminated // nil while it runs
}

// startContainer runs the container until it ends or ctx does, and then calls onEnd.
func startContainer(ctx context.Context, pod *corev1.Pod, spec corev1.Container, folder string, onEnd func()) *container {
	ctx, cancel := context.WithCancel(ctx)
	c := &container{
		spec:     spec,
		folder:   folder,
		env:      environment(pod, spec, folder),
		ctx:      ctx,
		log:      newLineLog(),
		resize:   make(chan remotecommand.TerminalSize, 1),
		started:  metav1.Now().Rfc3339Copy(),
		attached: map[io.Writer]struct{}{},
	}
	run := c.tick
	if argv := append(append([]string{}, spec.Command...), spec.Args...); isRunnable(argv) {
		run = c.command(argv)
	}
	go func() {
		c.end(run(ctx))
		cancel()
		onEnd()
	}()
	return c
}

func environment(pod *corev1.Pod, spec corev1.Container, folder string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + folder, "HOSTNAME=" + pod.Name, "TERM=xterm", "LANG=C.UTF-8"}
	for _, variable := range spec.Env {
		env = append(env, variable.Name+"="+variable.Value)
	}
	return env
}

func isRunnable(argv []string) bool {
	if len(argv) == 0 {
		return false
	}
	_, err := exec.LookPath(argv[0])
	return err == nil
}

// tick prints a line every second until ctx ends.
func (c *container) tick(ctx context.Context) error {
	for n := 1; ; n++ {
		fmt.Fprintf(c, "line %d of %s\n", n, c.spec.Name)
		if n < atOnce {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (c *container) command(argv []string) func(context.Context) error {
	p := process{folder: c.folder, env: c.env, argv: argv, out: c, err: c, tty: c.spec.TTY, resize: c.resize}
	if !c.spec.Stdin {
		return p.run
	}
	reader, writer := io.Pipe()
	p.in, c.stdin = reader, writer
	return func(ctx context.Context) error {
		defer reader.Close()
		return p.run(ctx)
	}
}

// Write takes what the main process prints: to whoever is attached, and to the log.
func (c *container) Write(data []byte) (int, error) {
	c.mu.Lock()
	attached := slices.Collect(maps.Keys(c.attached))
	c.mu.Unlock()
	for _, writer := range attached { // without the lock: a slow client must not keep the status waiting
		_, _ = writer.Write(data)
	}
	return c.log.Write(data)
}

func (c *container) end(err error) {
	c.log.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	code := exitCode(err)
	reason := "Completed"
	if code != 0 {
		reason = "Error"
	}
	now := metav1.Now().Rfc3339Copy()
	c.ended = &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, StartedAt: c.started, FinishedAt: now}
}

func (c *container) state() corev1.ContainerState {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return corev1.ContainerState{Terminated: c.ended}
	}
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: c.started}}
}

func (c *container) attach(writer io.Writer) (detach func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attached[writer] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.attached, writer)
	}
}
