package meta

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// BaseName is a name of an image that other images may be built on.
type BaseName struct {
	// Name is the full name: "docker.io/library/debian:bookworm".
	Name string
	// Upstream is the name of the upstream that has the image.
	Upstream string
	// Seen is when the image was last seen under the name.
	Seen time.Time
}

// maxBaseNames bounds the names of one image. The newest ones are kept.
const maxBaseNames = 32

// BaseImages remembers which images have which layers. A later pull records a lost fact again.
type BaseImages struct {
	ledger[baseRecord]
}

// NewBaseImages returns the images in s. By default a name is kept for 90 days after it was last
// seen.
func NewBaseImages(s Store, o Options) *BaseImages {
	return &BaseImages{newLedger[baseRecord](s, "base_images", cmp.Or(o.TTL, 90*24*time.Hour))}
}

// baseRecord is the stored form of the names of one image, the newest first. Mirrors of different
// versions add to the same record. So a record and each of its names keep fields that this version
// does not know.
type baseRecord struct {
	Names []baseNameRecord
	all   map[string]json.RawMessage // the fields as they were read
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *baseRecord) UnmarshalJSON(text []byte) error {
	if err := json.Unmarshal(text, &r.all); err != nil {
		return err
	}
	if names, ok := r.all["n"]; ok {
		return json.Unmarshal(names, &r.Names)
	}
	return nil
}

// MarshalJSON implements json.Marshaler.
func (r baseRecord) MarshalJSON() ([]byte, error) {
	names, err := json.Marshal(r.Names)
	if err != nil {
		return nil, err
	}
	all := map[string]json.RawMessage{}
	maps.Copy(all, r.all)
	all["n"] = names
	return json.Marshal(all)
}

type baseNameRecord struct {
	baseNameFields
	raw json.RawMessage // as it was read
}

type baseNameFields struct {
	Name     string `json:"n"`
	Upstream string `json:"u"`
	Seen     int64  `json:"t"` // Unix seconds
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *baseNameRecord) UnmarshalJSON(text []byte) error {
	r.raw = slices.Clone(text)
	return json.Unmarshal(text, &r.baseNameFields)
}

// MarshalJSON implements json.Marshaler.
func (r baseNameRecord) MarshalJSON() ([]byte, error) {
	if r.raw != nil {
		return r.raw, nil
	}
	return json.Marshal(r.baseNameFields)
}

func (r baseRecord) check() error {
	if len(r.Names) == 0 || len(r.Names) > maxBaseNames {
		return fmt.Errorf("base image with %d names", len(r.Names))
	}
	for _, n := range r.Names {
		if n.Name == "" || n.Seen <= 0 {
			return errors.New("base image without a name or a time")
		}
	}
	return nil
}

// Named returns the names of images that consist of exactly the layers with these diffIDs, the
// lowest layer first. If no name is known, Named returns no names and no error. An error means that
// the store failed.
func (b *BaseImages) Named(ctx context.Context, layers []digest.Digest) ([]BaseName, error) {
	r, err := b.current(ctx, baseKey(layers))
	if err != nil {
		return nil, fmt.Errorf("base images of %d layers: %w", len(layers), err)
	}
	var names []BaseName
	for _, n := range r.Names {
		names = append(names, BaseName{Name: n.Name, Upstream: n.Upstream, Seen: time.Unix(n.Seen, 0)})
	}
	return names, nil
}

func (b *BaseImages) current(ctx context.Context, key string) (r baseRecord, err error) {
	if r, err = b.read(ctx, key); errors.Is(err, ErrNotFound) {
		return baseRecord{}, nil
	}
	now := time.Now()
	r.Names = slices.DeleteFunc(r.Names, func(n baseNameRecord) bool { return Age(now, time.Unix(n.Seen, 0)) > b.ttl })
	return r, err
}

// Add stores a name of the image that consists of these layers. If two mirrors add names of the
// same image at the same moment, one of the names may be lost.
func (b *BaseImages) Add(ctx context.Context, layers []digest.Digest, n BaseName) error {
	for _, d := range layers {
		if err := checkDigest(d); err != nil {
			return fmt.Errorf("base image %s: %w", n.Name, err)
		}
	}
	key := baseKey(layers)
	r, err := b.current(ctx, key)
	if err != nil {
		return fmt.Errorf("base image %s: %w", n.Name, err)
	}
	r.Names = slices.DeleteFunc(r.Names, func(o baseNameRecord) bool { return o.Name == n.Name && o.Upstream == n.Upstream })
	r.Names = slices.Insert(r.Names, 0, baseNameRecord{baseNameFields: baseNameFields{n.Name, n.Upstream, n.Seen.Unix()}})
	slices.SortStableFunc(r.Names, func(a, b baseNameRecord) int { return cmp.Compare(b.Seen, a.Seen) })
	r.Names = r.Names[:min(len(r.Names), maxBaseNames)]
	if err := b.write(ctx, key, r); err != nil {
		return fmt.Errorf("base image %s: %w", n.Name, err)
	}
	return nil
}
