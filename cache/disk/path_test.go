package disk

import (
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestBlobPath(t *testing.T) {
	hex := strings.Repeat("ab", 32)
	got, err := blobPath(digest.Digest("sha256:" + hex))
	if want := "blobs/sha256/ab/" + hex; got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := blobPath(digest.Digest("sha512:" + hex + hex)); err != nil {
		t.Error(err)
	}
	for _, d := range []string{
		"", ":", "sha256", "sha256:", "sha256:" + hex[1:], "sha256:" + hex + "ab", "sha256:" + strings.ToUpper(hex),
		"sha256:../../../../etc/passwd", "sha384:" + hex + hex[:32], "md5:" + hex[:32], "sha256:" + strings.Repeat("/", 64),
	} {
		if p, err := blobPath(digest.Digest(d)); !errors.Is(err, ErrDigest) {
			t.Errorf("%q: %q, %v", d, p, err)
		}
	}
}

func FuzzPath(f *testing.F) {
	hex := strings.Repeat("0f", 32)
	f.Add("sha256:"+hex, "blobs/sha256/0f/"+hex)
	f.Add("sha512:"+hex+hex, "blobs/sha256/0f/"+hex+".tmp")
	f.Add("sha256:../"+hex[3:], "blobs/../0f/"+hex)
	f.Fuzz(func(t *testing.T, d, p string) {
		if name, err := blobPath(digest.Digest(d)); err == nil {
			if back, ok := parsePath(path.Dir(name), path.Base(name)); !ok || back.digest() != digest.Digest(d) {
				t.Errorf("%q becomes %q becomes %q", d, name, back.digest())
			}
		}
		dir, base := path.Dir(p), path.Base(p)
		if back, ok := parsePath(dir, base); ok {
			if name, err := blobPath(back.digest()); err != nil || name != dir+"/"+base {
				t.Errorf("%q becomes %q becomes %q, %v", p, back.digest(), name, err)
			}
		}
	})
}
