package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"dray/cache/meta/metatest"
	"dray/cache/meta/redis"
)

var remake = flag.Bool("former", false, "make testdata/former anew with the binary that DRAY_OLD names")

const (
	formerDirectory = "testdata/former/directory.tar.gz"
	formerRedis     = "testdata/former/redis.json"
)

// made is what a test must know about the archive.
type made struct {
	At      time.Time         `json:"at"`
	By      string            `json:"by"`
	Uploads map[string]string `json:"uploads"` // locations by repository
}

// make writes testdata/former with an old program.
func (f *former) make(t *testing.T) {
	t.Helper()
	if oldBinary() == "" {
		t.Fatal("DRAY_OLD names no binary")
	}
	version, err := exec.Command(oldBinary(), "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ecr, hub := f.registries(t)
	s := startBinary(t, oldBinary(), ecr, hub, dir, formerEdits...)
	m := made{By: strings.TrimSpace(string(version)), Uploads: f.fill(s)}
	s.stop()
	m.At = time.Now()
	pack(t, dir, m)

	server := metatest.StartRedis(t)
	ecr, hub = f.registries(t)
	s = startBinary(t, oldBinary(), ecr, hub, t.TempDir(), append(formerEdits, "cache: {dir", "metadata: {url: 'redis://"+server.Addr+"'}\ncache: {dir")...)
	f.fill(s)
	s.stop()
	dump(t, server, m.At)
}

// pack writes a directory with the modes and times of its files.
func pack(t *testing.T, dir string, m made) {
	t.Helper()
	file, err := os.Create(formerDirectory)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, _ := gzip.NewWriterLevel(file, gzip.BestCompression)
	out := tar.NewWriter(z)
	text, _ := json.MarshalIndent(m, "", "  ")
	add := func(h *tar.Header, content []byte) {
		h.Format, h.Uid, h.Gid, h.Uname, h.Gname, h.AccessTime, h.ChangeTime = tar.FormatPAX, 0, 0, "", "", time.Time{}, time.Time{}
		if err := out.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add(&tar.Header{Name: "made.json", Mode: 0o644, Size: int64(len(text)), ModTime: m.At, Typeflag: tar.TypeReg}, text)
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if !info.Mode().IsRegular() && !info.IsDir() || strings.HasSuffix(name, "lock") {
			return nil
		}
		h, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		h.Name = filepath.ToSlash(name)
		if info.IsDir() {
			h.Name += "/"
			add(h, nil)
			return nil
		}
		content, err := os.ReadFile(path)
		if err == nil {
			add(h, content)
		}
		return err
	})
	if err := errors.Join(err, out.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
}

// unpack makes the directory again, as it would be had the former program ended now.
func unpack(t *testing.T, dir string) (m made) {
	t.Helper()
	file, err := os.Open(formerDirectory)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var directories []*tar.Header
	touch := func(h *tar.Header) error {
		path, at := filepath.Join(dir, h.Name), h.ModTime.Add(time.Since(m.At))
		return errors.Join(os.Chmod(path, h.FileInfo().Mode().Perm()), os.Chtimes(path, at, at))
	}
	for in := tar.NewReader(z); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		switch {
		case err != nil:
		case h.Name == "made.json":
			err = json.Unmarshal(content, &m)
		case h.Typeflag == tar.TypeDir:
			err = os.MkdirAll(filepath.Join(dir, h.Name), 0o700)
			directories = append(directories, h)
		default:
			err = errors.Join(os.WriteFile(filepath.Join(dir, h.Name), content, 0o600), touch(h))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range slices.Backward(directories) { // a file that is written changes the time of its directory
		if err := touch(h); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// shifted is the value of a fact with its times moved.
func shifted(t *testing.T, key string, value []byte, by time.Duration) []byte {
	t.Helper()
	_, space, _ := strings.Cut(key, "v1/")
	space, _, _ = strings.Cut(space, "/")
	member := map[string]string{"tag": "c", "forgot": "b", "touch": "t"}[space] // Unix nanoseconds
	var rec map[string]json.RawMessage
	if err := json.Unmarshal(value, &rec); err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	move := func(rec map[string]json.RawMessage, member string, by int64) {
		n, err := strconv.ParseInt(string(rec[member]), 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		rec[member] = json.RawMessage(strconv.FormatInt(n+by, 10))
	}
	switch {
	case member != "":
		move(rec, member, by.Nanoseconds())
	case space == "base":
		var names []map[string]json.RawMessage
		if err := json.Unmarshal(rec["n"], &names); err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			move(n, "t", int64(by/time.Second))
		}
		rec["n"], _ = json.Marshal(names)
	default:
		return value
	}
	moved, _ := json.Marshal(rec)
	return moved
}

// shiftFacts moves the times of facts in a file.
func (f *former) shiftFacts(t *testing.T, path string, by time.Duration) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	spaces := map[string]bool{}
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("facts"))
		changed := map[string][]byte{}
		err := b.ForEach(func(k, v []byte) error {
			value := bytes.Clone(v[:8])
			if at := binary.BigEndian.Uint64(v); at != 0 {
				binary.BigEndian.PutUint64(value, at+uint64(by))
			}
			changed[string(k)] = append(value, shifted(t, string(k), v[8:], by)...)
			spaces[strings.Split(string(k), "/")[1]] = true
			return nil
		})
		for k, v := range changed {
			err = errors.Join(err, b.Put([]byte(k), v))
		}
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(spaces)); !slices.Equal(got, []string{"base", "forgot", "home", "known", "link", "tag", "touch", "verdict"}) {
		t.Errorf("the archive has facts of the kinds %v", got)
	}
}

// dumped is an entry of Redis.
type dumped struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Left  int64  `json:"left"` // milliseconds to live at the time of the dump, -1 for ever
}

type dumpFile struct {
	At      time.Time `json:"at"`
	Entries []dumped  `json:"entries"`
}

func redisOf(t *testing.T, server *metatest.RedisServer) *redis.Store {
	t.Helper()
	store, err := redis.Open(redis.Options{URL: "redis://" + server.Addr, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

func dump(t *testing.T, server *metatest.RedisServer, at time.Time) {
	t.Helper()
	d := dumpFile{At: at}
	for e, err := range redisOf(t, server).Scan(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		left, err := strconv.ParseInt(strings.Trim(server.Do("PTTL", "dray:"+e.Key), ":\r\n"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		d.Entries = append(d.Entries, dumped{e.Key, string(e.Value), left})
	}
	slices.SortFunc(d.Entries, func(a, b dumped) int { return strings.Compare(a.Key, b.Key) })
	text, _ := json.MarshalIndent(d, "", " ")
	if err := os.WriteFile(formerRedis, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// restore writes the dump into a Redis as if it had been made now.
func restore(t *testing.T, server *metatest.RedisServer) {
	t.Helper()
	text, err := os.ReadFile(formerRedis)
	if err != nil {
		t.Fatal(err)
	}
	var d dumpFile
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	store := redisOf(t, server)
	for _, e := range d.Entries {
		left := time.Duration(max(e.Left, 0)) * time.Millisecond
		if err := store.Put(context.Background(), e.Key, shifted(t, e.Key, []byte(e.Value), time.Since(d.At)), left); err != nil {
			t.Fatal(err)
		}
	}
}
