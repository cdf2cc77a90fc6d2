package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// processes is done when nothing that was started here runs any more.
var processes sync.WaitGroup

// process is one command on this machine and what it is joined to; a stream that is absent is nil.
type process struct {
	folder   string
	env      []string
	argv     []string
	in       io.Reader
	out, err io.Writer
	tty      bool
	resize   <-chan remotecommand.TerminalSize
}

// run starts the command as a session of its own and waits for it; when ctx ends, the whole session is killed.
// An exit with another code than 0 is a CodeExitError, which the streaming code hands to the client.
func (p process) run(ctx context.Context) error {
	processes.Add(1)
	defer processes.Done()
	if err := os.MkdirAll(p.folder, 0o700); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, p.argv[0], p.argv[1:]...)
	cmd.Dir, cmd.Env = p.folder, p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	run := p.runInPipes
	if p.tty {
		run = p.runInTerminal
	}
	err := run(cmd)
	if cmd.Process != nil {
		_ = cmd.Cancel() // what it left in the background ends with it
	}
	return withCode(err)
}

func (p process) runInPipes(cmd *exec.Cmd) error {
	cmd.Stdout, cmd.Stderr = p.out, p.err
	if p.in != nil {
		// A pipe of our own: given a reader, Wait would wait for the client to end its input.
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(stdin, p.in)
			_ = stdin.Close()
		}()
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Wait()
}

// withCode turns an error of os/exec into the exit code that a shell would give: 127 and 126 for what cannot be
// started, 128 and the signal's number for what was killed.
func withCode(err error) error {
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code := exit.ExitCode()
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			code = 128 + int(status.Signal())
		}
		return utilexec.CodeExitError{Err: err, Code: code}
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return utilexec.CodeExitError{Err: err, Code: 127}
	case errors.Is(err, os.ErrPermission):
		return utilexec.CodeExitError{Err: err, Code: 126}
	}
	return err
}

// exitCode is what a container's status says of how its process ended; without a code of its own it was killed.
func exitCode(err error) int32 {
	var coded utilexec.CodeExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &coded):
		return int32(coded.Code)
	}
	return 128 + int32(syscall.SIGKILL)
}
