package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

const endOfTransmission = 4 // ^D, the end of input on a terminal

// runInTerminal runs the command on a pseudo-terminal of its own.
func (p process) runInTerminal(cmd *exec.Cmd) error {
	master, slave, err := openTerminal()
	if err != nil {
		return err
	}
	defer master.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr.Setctty = true
	err = cmd.Start()
	slave.Close()
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	go followSize(master, p.resize, ended)
	if p.in != nil {
		go func() {
			_, _ = io.Copy(master, p.in)
			_, _ = master.Write([]byte{endOfTransmission})
		}()
	}
	out := p.out
	if out == nil {
		out = io.Discard
	}
	_, _ = io.Copy(out, master) // ends with EIO, once nothing holds the terminal any more
	return cmd.Wait()
}

func followSize(master *os.File, sizes <-chan remotecommand.TerminalSize, ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
		}
	}
}

func openTerminal() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}
