package hosted

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// Repositories returns the number of repositories whose files are below a directory, and 0 if the
// directory does not exist.
func Repositories(directory string) (n int, err error) {
	err = eachIn(directory, func(files, string, string) error { n++; return nil })
	return n, err
}

// Needs calls visit for each manifest and blob of the repositories below a directory, without
// opening a Store. It may be called while a process has the Store open. load returns the bytes of a
// manifest. If its error is fs.ErrNotExist, or if the bytes are not a valid manifest, Needs leaves
// out the blobs that the manifest names. Needs returns any other error of load.
func Needs(directory string, load func(digest.Digest) ([]byte, error), visit func(digest.Digest)) error {
	return eachIn(directory, func(w files, name, file string) error {
		text, err := w.read(file)
		if err != nil {
			return err
		}
		st, err := decode(name, text)
		if err != nil {
			return fmt.Errorf("repository %s: %w", name, err)
		}
		for d, m := range st.manifests {
			visit(d)
			body, err := load(d)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("repository %s: %w", name, err)
			}
			parsed, err := oci.ParseManifest(m.mediaType, body)
			if err != nil {
				continue
			}
			for _, b := range m.with(parsed).blobs {
				visit(b.Digest)
			}
		}
		return nil
	})
}

// eachIn calls visit for the file of every repository below a directory. If the directory does not
// exist, eachIn returns nil.
func eachIn(directory string, visit func(w files, name, file string) error) error {
	root, err := os.OpenRoot(directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	w := files{root}
	return w.each(context.Background(), func(name, file string) error { return visit(w, name, file) })
}
