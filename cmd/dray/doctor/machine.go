package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dray/cmd/dray/config"
)

const (
	// slowSync is the longest time that the sync of a small file may take without a warning. Slow
	// disks delay pushes with acknowledge: local.
	slowSync = 100 * time.Millisecond
	// fewInodes is the number of free inodes below which the doctor warns. A cache of many images
	// needs about this number.
	fewInodes = 100_000
)

// space describes a file system: its free bytes, its inodes and its kind.
type space struct {
	free             int64
	files, freeFiles uint64
	kind             string // empty for a local disk
}

// directory returns the checks of the cache directory.
func directory(c config.Cache) []Check {
	at := func(id string, run func(dir string, s space) Finding) Check {
		return Check{"disk", "disk." + id, func(context.Context) Finding {
			dir, err := existing(c.Directory)
			if err != nil {
				return failed("set another directory with cache.directory", "%s: %v", c.Directory, err)
			}
			s, err := spaceOf(dir)
			if err != nil {
				return unknown("", "%s: %v", dir, err)
			}
			return run(dir, s)
		}}
	}
	return []Check{
		at("space", func(dir string, s space) Finding { return room(dir, s, c.MinFreeBytes) }),
		at("inodes", inodes),
		at("kind", kind),
		{"disk", "disk.sync", func(context.Context) Finding { return syncTime(c.Directory) }},
	}
}

func room(dir string, s space, least config.Bytes) Finding {
	free := config.Bytes(s.free >> 20 << 20) // in whole MiB
	if free <= least {
		return failed("make room on the disk, or lower cache.min_free_bytes; dray caches nothing and refuses pushes meanwhile", "%v are free on the disk of %s, and cache.min_free_bytes is %v", free, dir, least)
	}
	return ok("%v are free on the disk of %s", free, dir)
}

func inodes(dir string, s space) Finding {
	switch {
	case s.files == 0:
		return ok("the file system of %s has no fixed number of files", dir)
	case s.freeFiles < fewInodes:
		return warning("remove files, or make a file system with more inodes", "the file system of %s has room for only %d more files", dir, s.freeFiles)
	}
	return ok("the file system of %s has room for %d more files", dir, s.freeFiles)
}

func kind(dir string, s space) Finding {
	switch s.kind {
	case "":
		return ok("%s is on a local disk", dir)
	case "tmpfs":
		return warning("use a disk: the cache would be lost at each restart, and takes memory", "%s is in memory (tmpfs)", dir)
	}
	return warning("use a local disk for cache.directory", "%s is on %s, which may be slow, or lack what dray needs of a disk", dir, s.kind)
}

// existing returns dir, or its nearest parent that exists.
func existing(dir string) (string, error) {
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil && info.IsDir():
			return dir, nil
		case err == nil:
			return "", errors.New("not a directory")
		case !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir:
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}

// syncTime measures how long it takes to sync a small file in the cache directory.
func syncTime(dir string) Finding {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return unknown("dray serve creates it", "%s does not exist yet", dir)
	}
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return failed("run dray doctor as the user of dray, or give that user the directory", "dray cannot write to its cache directory: %v", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	_, err = f.Write(make([]byte, 4096))
	began := time.Now()
	if err = errors.Join(err, f.Sync()); err != nil {
		return failed("look at the disk", "%s: %v", dir, err)
	}
	return syncFinding(dir, time.Since(began))
}

// sending says whether the kernel can splice files of the cache. dray uses splice to send them over
// plain HTTP. trySplice splices a small file into a pipe, or returns the reason why it cannot.
func sending(dir string, trySplice func(*os.File) error) Finding {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return unknown("dray serve creates it", "%s does not exist yet, so splice was not tried", dir)
	}
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return unknown("", "splice was not tried: %v", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write([]byte("dray")); err != nil {
		return unknown("", "splice was not tried: %v", err)
	}
	if err := trySplice(f); err != nil {
		return warning("use a local disk for cache.directory, and look at /proc/sys/fs/pipe-user-pages-soft; listeners with TLS do not need splice", "the kernel does not splice files of %s, so dray sends them at a higher cost: %v", dir, err)
	}
	return ok("files of %s can be sent by splice, which dray uses over plain HTTP; over TLS it encrypts in its process", dir)
}

func syncFinding(dir string, took time.Duration) Finding {
	if took > slowSync {
		return warning("use a faster disk if clients push with acknowledge: local", "a sync of %s took %s", dir, took.Round(time.Millisecond))
	}
	return ok("a sync of %s took %s", dir, took.Round(time.Microsecond))
}

// openFiles says whether dray may open enough files.
func openFiles(limit func() (int, error)) Finding {
	n, err := limit()
	switch {
	case err != nil:
		return unknown("", "limit of open files: %v", err)
	case n < 1024:
		return warning("raise the limit, by LimitNOFILE= of systemd, --ulimit nofile= of Docker, or ulimit -n", "only %d files may be open", n)
	}
	return ok("%d files may be open", n)
}

// memory compares the memory that dray may use with the memory that the cache uses.
func memory(limit int64, c config.Cache) Finding {
	switch {
	case limit == 0:
		return ok("nothing limits the memory of this process")
	case limit < 2*int64(c.MemoryBytes):
		return warning("raise the limit, or lower cache.memory_bytes", "the memory of this process is limited to %v, and cache.memory_bytes is %v", config.Bytes(limit), c.MemoryBytes)
	}
	return ok("the memory of this process is limited to %v", config.Bytes(limit))
}

// proxies lists the proxies for dray's requests to registries, without their passwords.
func proxies(environ []string) Finding {
	var set []string
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		upper := strings.ToUpper(name)
		if value == "" || upper != "HTTP_PROXY" && upper != "HTTPS_PROXY" && upper != "NO_PROXY" {
			continue
		}
		if upper != "NO_PROXY" {
			u, err := url.Parse(value)
			if err != nil || u.Host == "" { // net/http also accepts a host and port as a URL
				u, err = url.Parse("http://" + value)
			}
			if err != nil || u.Host == "" {
				return failed("write a URL, such as http://proxy.example:3128", "%s is no URL", name)
			}
			value = u.Redacted()
		}
		set = append(set, name+"="+value)
	}
	if len(set) == 0 {
		return ok("no proxy is set")
	}
	slices.Sort(set)
	return ok("requests to registries heed %s", strings.Join(set, ", "))
}
