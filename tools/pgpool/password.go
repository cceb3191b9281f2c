package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"pgpool-go/conf"
)

// prompt asks for a secret on the terminal, without echo, or on stdin if there
// is no terminal.
func prompt(t *call, text string) string {
	in, out := t.in, t.stderr
	if tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		defer tty.Close()
		in, out = tty, io.Writer(tty)
	}
	// Silent before the question is seen: the answer may come at once.
	loud, err := silence(in)
	if err != nil {
		t.errorf("could not read password: %v", err)
		return ""
	}
	io.WriteString(out, text)
	line, err := readLine(in)
	loud()
	if err != nil {
		t.errorf("could not read password: %v", err)
	}
	io.WriteString(out, "\n")
	return line
}

// silence switches off the echo of a terminal, and of nothing else; loud
// switches it on again.
func silence(in *os.File) (loud func(), err error) {
	fd := int(in.Fd())
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}, nil
	}
	silent := *was
	silent.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &silent); err != nil {
		return nil, err
	}
	return func() { unix.IoctlSetTermios(fd, unix.TCSETSF, was) }, nil
}

// readLine reads byte by byte, so that what follows stays for whoever reads next.
func readLine(in *os.File) (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := in.Read(b)
		if n == 1 && b[0] == '\n' || errors.Is(err, io.EOF) {
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		if err != nil {
			return "", err
		}
		line = append(line, b[:n]...)
	}
}

// isTerminal reports whether f is one.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// savedPassword looks into PCPPASSFILE or ~/.pcppass. That a file others may
// read is passed over in silence, except under -d, is the original's.
func (t *pcpCall) savedPassword(host string, port int, user string) string {
	file := os.Getenv("PCPPASSFILE")
	if file == "" {
		file = filepath.Join(home(), ".pcppass")
	}
	password, _, notices := conf.PcpPassword(file, host, strconv.Itoa(port), user)
	if t.given("debug") {
		for _, n := range notices {
			fmt.Fprintf(t.out, "WARNING: %s\n", n.Text)
		}
	}
	return password
}
