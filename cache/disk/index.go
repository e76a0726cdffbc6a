package disk

import (
	"encoding/binary"
	"encoding/hex"
	"iter"

	"github.com/opencontainers/go-digest"
)

// key is a digest in few bytes, because a directory may have a million blobs.
type key struct {
	sum  [32]byte
	tail *[32]byte // the second half of a sha512 digest; nil for sha256
}

// keyOf returns the key of a valid digest.
func keyOf(dg digest.Digest) key { return keyOfHex(dg.Encoded()) }

// keyOfHex is keyOf for the hex digits of a digest. The number of digits determines the algorithm.
func keyOfHex(digits string) (k key) {
	var sum [64]byte
	n, _ := hex.Decode(sum[:], []byte(digits)) // the caller checked the digits
	copy(k.sum[:], sum[:])
	if n > len(k.sum) {
		tail := [32]byte(sum[32:])
		k.tail = &tail
	}
	return k
}

// digest is the inverse of keyOf.
func (k *key) digest() digest.Digest {
	if k.tail == nil {
		return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(k.sum[:]))
	}
	return digest.NewDigestFromEncoded(digest.SHA512, hex.EncodeToString(k.sum[:])+hex.EncodeToString(k.tail[:]))
}

// prefix returns the first 8 bytes of the key, for uses in which a collision is harmless.
func (k *key) prefix() uint64 { return binary.BigEndian.Uint64(k.sum[:]) }

func (k *key) equal(other *key) bool {
	if k.tail == nil || other.tail == nil {
		return k.sum == other.sum && k.tail == other.tail
	}
	return k.sum == other.sum && *k.tail == *other.tail
}

// index finds entries by digest. It takes a quarter of the memory of a map keyed by digest.
type index struct {
	first map[uint64]*entry // by prefix
	// others has further entries. If first already has another entry with the same prefix, put adds
	// the new entry here. This is rare, unless somebody makes such digests on purpose.
	others map[digest.Digest]*entry
}

func newIndex() index {
	return index{map[uint64]*entry{}, map[digest.Digest]*entry{}}
}

func (x *index) len() int { return len(x.first) + len(x.others) }

// get returns the entry of a valid digest, or nil.
func (x *index) get(dg digest.Digest) *entry {
	k := keyOf(dg)
	return x.find(&k)
}

func (x *index) find(k *key) *entry {
	e := x.first[k.prefix()]
	if e != nil && e.equal(k) {
		return e
	}
	if len(x.others) == 0 {
		return nil
	}
	return x.others[k.digest()]
}

// put adds an entry. It replaces an entry with the same digest.
func (x *index) put(e *entry) {
	switch old := x.first[e.prefix()]; {
	case old != nil && !old.equal(&e.key):
		x.others[e.digest()] = e
	case old == nil && len(x.others) > 0 && x.others[e.digest()] != nil:
		x.others[e.digest()] = e
	default:
		x.first[e.prefix()] = e
	}
}

func (x *index) remove(e *entry) {
	if old := x.first[e.prefix()]; old != nil && old.equal(&e.key) {
		delete(x.first, e.prefix())
		return
	}
	delete(x.others, e.digest())
}

// all yields the entries in no particular order. The caller may change the index between two
// entries.
func (x *index) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for _, e := range x.first {
			if !yield(e) {
				return
			}
		}
		for _, e := range x.others {
			if !yield(e) {
				return
			}
		}
	}
}
