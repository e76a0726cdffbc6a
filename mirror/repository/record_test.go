package repository

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// childrenOf makes n children.
func childrenOf(n int) []oci.Child {
	children := make([]oci.Child, n)
	for i := range children {
		d := digest.FromBytes(binary.BigEndian.AppendUint32(nil, uint32(i)))
		children[i] = oci.Child{Descriptor: oci.Descriptor{MediaType: octetStream, Digest: d, Size: 4}}
	}
	return children
}

// Nothing is recorded about the children of a manifest with too many, whether it is pulled or
// pushed.
func TestManyChildren(t *testing.T) {
	for _, n := range []int{maxRecorded, maxRecorded + 1} {
		f := newFixture(t)
		children := childrenOf(n)
		f.StorePushed(t.Context(), BeforePush(t.Context(), f.Repo, oci.Reference{Tag: "v1"}), oci.Reference{Tag: "v1"}, f.manifest, children)
		for _, of := range []string{f.Name, anywhere} {
			_, err := f.store.o.Visibility.Get(t.Context(), "up", of, children[0].Digest)
			if recorded := err == nil; recorded != (n <= maxRecorded) {
				t.Errorf("a child of %d in %q: %v", n, of, err)
			}
			if _, err := f.store.o.Visibility.Get(t.Context(), "up", of, f.digest); err != nil {
				t.Errorf("the manifest in %q: %v", of, err)
			}
		}
	}
}

// A mount ends the belief that the blob is missing, whether its size can be looked up or not.
func TestMountEndsAbsence(t *testing.T) {
	for _, found := range []bool{true, false} {
		f := newFixture(t)
		f.NoBlob(f.digest).Asking(t.Context()).Remember(t.Context(), time.Now(), oci.ErrBlobUnknown)
		if f.NoBlob(f.digest).Err(t.Context()) == nil {
			t.Fatal("the absence is not believed")
		}
		if found {
			f.source.has[f.digest] = f.size()
		}
		f.RecordMounted(t.Context(), f.digest)
		if err := f.NoBlob(f.digest).Err(t.Context()); err != nil {
			t.Errorf("size found %v: %v", found, err)
		}
		if f.PresentAtTarget(t.Context(), f.digest) != found {
			t.Errorf("size found %v: presence is not recorded as found", found)
		}
	}
}
