package disk

import (
	"errors"
	"io/fs"
	"os"
	"path"
)

// openFile opens a file of blobs/ for reading. The directories of the shards, a few
// hundred, are kept open, as to walk down to the file costs several times what opening it does.
func (d *Dir) openFile(name string) (*os.File, error) {
	dir, base := path.Split(name)
	if shard, ok := d.shards.Load(dir); ok {
		f, err := shard.(*os.Root).Open(base)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		return d.root.Open(name) // the shard may have been removed and made again
	}
	shard, err := d.root.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	kept, had := d.shards.LoadOrStore(dir, shard)
	if had {
		if err := shard.Close(); err != nil {
			return nil, err
		}
	}
	return kept.(*os.Root).Open(base)
}

// closeShards closes the directories that openFile has kept.
func (d *Dir) closeShards() error {
	var err error
	for dir, shard := range d.shards.Range {
		d.shards.Delete(dir)
		err = errors.Join(err, shard.(*os.Root).Close())
	}
	return err
}
