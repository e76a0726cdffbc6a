package htpasswd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/crypto/bcrypt"
)

// hashOf returns the hash of a password for a password file.
func hashOf(password string) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	if errors.Is(err, bcrypt.ErrPasswordTooLong) {
		return "", errors.New("the password is longer than 72 bytes, the most that bcrypt uses; choose a shorter one")
	}
	return string(hash), err
}

// edit replaces the lines of a user by one with the hash, and reports whether there were any. An
// empty hash removes them. All other bytes stay.
func edit(text []byte, user, hash string) (changed []byte, found bool) {
	line := []byte(user + ":" + hash + "\n")
	put := hash == ""
	for old := range bytes.Lines(text) {
		name, _, ok := bytes.Cut(bytes.TrimSpace(old), []byte(":"))
		if !ok || string(name) != user {
			changed = append(changed, old...)
			continue
		}
		found = true
		if !put {
			changed, put = append(changed, line...), true
		}
	}
	if put {
		return changed, found
	}
	if n := len(changed); n > 0 && changed[n-1] != '\n' {
		changed = append(changed, '\n')
	}
	return append(changed, line...), found
}

// change replaces a file by what edited makes of its content. Readers see either the old file or
// the new one. The new file has the mode and the owner of the old one. Without an old one, only its
// owner can read it. A symbolic link stays, and the file that it names is replaced.
func change(name string, edited func([]byte) ([]byte, error)) (err error) {
	if at, err := filepath.EvalSymlinks(name); err == nil {
		name = at
	}
	text, err := os.ReadFile(filepath.Clean(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if text, err = edited(text); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(name), ".htpasswd-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary.Name()) // it has no password, only hashes
		}
	}()
	_, err = temporary.Write(text)
	err = errors.Join(err, likeOld(temporary, name), temporary.Sync(), temporary.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.Rename(temporary.Name(), name)
}

// likeOld gives f the mode and the owner of the file called name, if that file exists.
func likeOld(f *os.File, name string) error {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if old, ok := info.Sys().(*syscall.Stat_t); ok && (int(old.Uid) != os.Geteuid() || int(old.Gid) != os.Getegid()) {
		if err := f.Chown(int(old.Uid), int(old.Gid)); err != nil {
			return err
		}
	}
	return f.Chmod(info.Mode().Perm())
}
