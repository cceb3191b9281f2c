package pgpool

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"pgpool-go/conf"
	"pgpool-go/tools/testcluster"
)

func TestListenPcp(t *testing.T) {
	dir, err := os.MkdirTemp("", "pcp-") // short, as a socket's path must be
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	port, err := testcluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(port))
	open := func(t *testing.T, c *conf.Config) *Server {
		t.Helper()
		s := &Server{}
		t.Cleanup(s.closePcp)
		if err := s.listenPcp(c); err != nil {
			t.Fatal(err)
		}
		return s
	}

	t.Run("nowhere", func(t *testing.T) {
		for _, c := range []*conf.Config{{PcpListenAddresses: []string{"*"}, PcpSocketDir: []string{dir}}, {PcpPort: port}} {
			if s := open(t, c); len(s.pcp) > 0 {
				t.Errorf("%d listeners", len(s.pcp))
			}
		}
	})
	t.Run("stale socket", func(t *testing.T) {
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		ln.SetUnlinkOnClose(false)
		ln.Close()
		s := open(t, &conf.Config{PcpPort: port, PcpSocketDir: []string{dir}})
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o777 {
			t.Errorf("%v, %v", info, err)
		}
		s.closePcp()
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	t.Run("taken", func(t *testing.T) {
		c := &conf.Config{PcpPort: port, PcpListenAddresses: []string{"127.0.0.1"}, PcpSocketDir: []string{dir}}
		open(t, c)
		second := &Server{}
		defer second.closePcp()
		if second.listenPcp(c) == nil {
			t.Error("two servers on one port")
		}
		socket := &Server{}
		defer socket.closePcp()
		if socket.listenPcp(&conf.Config{PcpPort: port, PcpSocketDir: []string{dir}}) == nil {
			t.Error("the socket of a living server was taken")
		}
	})
}
