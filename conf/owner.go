package conf

import (
	"os"
	"syscall"
)

// sameOwner gives a new file the owner of the one it will replace, so that
// root can edit pool_passwd and the server still read it.
func sameOwner(f *os.File, path string) error {
	old, err := os.Stat(path)
	if err != nil {
		return nil // nothing to replace
	}
	was, ok1 := old.Sys().(*syscall.Stat_t)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	is, ok2 := info.Sys().(*syscall.Stat_t)
	if !ok1 || !ok2 || was.Uid == is.Uid && was.Gid == is.Gid {
		return nil
	}
	return f.Chown(int(was.Uid), int(was.Gid))
}
