//go:build profile

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"
)

// Built with the tag profile, the program writes CPU profiles of ten seconds each to
// the folder that CPU_PROFILES names: see make pgo.
func init() {
	dir := os.Getenv("CPU_PROFILES")
	if dir == "" {
		return
	}
	go func() {
		for n := 0; ; n++ {
			f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%d-%03d.prof", os.Getpid(), n)))
			if err != nil || pprof.StartCPUProfile(f) != nil {
				return
			}
			time.Sleep(10 * time.Second)
			pprof.StopCPUProfile()
			f.Close()
		}
	}()
}
