package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
)

// oddServer lets anybody in and answers the first request with answer; without
// login it does so instead of giving a salt.
func oddServer(t testing.TB, login bool, answer string) (port string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			r := bufio.NewReader(nc)
			for {
				var head [5]byte
				if _, err := io.ReadFull(r, head[:]); err != nil {
					break
				}
				io.CopyN(io.Discard, r, int64(binary.BigEndian.Uint32(head[1:]))-4)
				switch {
				case login && head[0] == 'M':
					io.WriteString(nc, "m\x00\x00\x00\x08abcd")
					continue
				case login && head[0] == 'R':
					io.WriteString(nc, frame('r', "AuthenticationOK\x00"))
					continue
				}
				io.WriteString(nc, answer)
				break
			}
			nc.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, r)
			nc.Close()
		}
	}()
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port
}

func frame(letter byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{letter}, uint32(4+len(body)))) + body
}

// TestOddServers: servers that break off, or say what no server says.
func TestOddServers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other programs")
	}
	for _, c := range []struct {
		name, command string
		login         bool
		answer        string
	}{
		{"closes at once", "pcp_node_count", false, ""},
		{"closes before the answer", "pcp_node_count", true, ""},
		{"closes within the answer", "pcp_node_count", true, "l\x00\x00\x00\x16Comm"},
		{"closes within a list", "pcp_node_info", true, frame('i', "ArraySize\x002\x00")},
		{"closes instead of doing", "pcp_attach_node 1", true, ""},
		{"no nodes", "pcp_node_info", true, frame('i', "ArraySize\x000\x00") + frame('i', "CommandComplete\x00")},
		{"no processes", "pcp_proc_count", true, frame('n', "CommandComplete\x000\x00")},
		{"no error text", "pcp_attach_node 1", true, frame('E', "SERROR\x00Mit failed\x00\x00")},
		{"hint", "pcp_attach_node 1", true, frame('E', "SERROR\x00Mit failed\x00Dwhy\x00Hhow\x00\x00")},
		{"panic", "pcp_attach_node 1", true, frame('E', "SPANIC\x00CXX000\x00Mit failed\x00\x00")},
		{"unknown type", "pcp_attach_node 1", true, frame('?', "x\x00")},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := pcpPlace(t, "*:*:*:secret")
			words := strings.Fields(c.command)
			args := append([]string{"-w", "-h", "127.0.0.1", "-p", oddServer(t, c.login, c.answer), "-U", "pcpadm"}, words[1:]...)
			same(t, p.ours(t, words[0], args...), p.theirs(t, words[0], args...))
		})
	}
}
