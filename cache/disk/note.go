package disk

import (
	"errors"
	"os"
	"path"
)

// writeFile replaces a file of the directory in one atomic step. Once it has returned nil, the new
// content survives a power cut.
func (t *tree) writeFile(name string, b []byte) error {
	tmp := t.ingestName()
	if err := t.fault(OpCreate, tmp); err != nil {
		return err
	}
	f, err := t.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = t.root.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, t.root.Remove(tmp))
	}
	return t.syncDirs(path.Dir(name))
}
