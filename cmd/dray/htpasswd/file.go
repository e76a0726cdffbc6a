package htpasswd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/bcrypt"

	"dray/cmd/dray/replace"
)

// hashOf returns the hash of a password for a password file.
func hashOf(password string) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	if errors.Is(err, bcrypt.ErrPasswordTooLong) {
		return "", errors.New("the password is longer than 72 bytes, the most that bcrypt uses; choose a shorter one")
	}
	return string(hash), err
}

// edit replaces all lines of a user by one line with the hash, and reports whether the text had
// such lines. If it had none, edit adds the line at the end. If the hash is empty, edit only
// removes the lines of the user. All other bytes stay.
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

// change replaces the content of a file by the result of newText, in one step. If the file does not
// exist, change creates it, readable only for its owner. If name is a symbolic link, change
// replaces the file that the link names.
func change(name string, newText func([]byte) ([]byte, error)) error {
	if at, err := filepath.EvalSymlinks(name); err == nil {
		name = at
	}
	text, err := os.ReadFile(filepath.Clean(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if text, err = newText(text); err != nil {
		return err
	}
	old, err := os.Stat(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = replace.File(name, text, old, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
