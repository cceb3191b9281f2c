package testcluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// FreePort picks a loopback port on which nobody listens. It lies below the
// range from which the kernel takes ports for outgoing connections, so that a
// server finds it free again after a restart. Somebody may still be faster:
// who listens must be ready to pick another.
func FreePort() (int, error) {
	for range 200 {
		port := 15000 + rand.IntN(17000)
		ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("testcluster: %w", err)
		}
		return port, ln.Close()
	}
	return 0, errors.New("testcluster: no free port between 15000 and 32000")
}
