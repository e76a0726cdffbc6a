package disk

import (
	"encoding/binary"
	"encoding/hex"
	"iter"

	"github.com/opencontainers/go-digest"
)

// key is a digest in few bytes: a directory may have a million of them.
type key struct {
	sum  [32]byte
	tail *[32]byte // the second half of a sha512 digest; nil for sha256
}

// keyOf returns the key of a digest that is valid.
func keyOf(dg digest.Digest) key { return keyOfHex(dg.Encoded()) }

// keyOfHex is keyOf of a digest without its algorithm, which the length tells.
func keyOfHex(digits string) (k key) {
	var sum [64]byte
	n, _ := hex.Decode(sum[:], []byte(digits)) // valid
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

// prefix stands for the key where another one with the same prefix does no harm.
func (k *key) prefix() uint64 { return binary.BigEndian.Uint64(k.sum[:]) }

func (k *key) equal(other *key) bool {
	if k.tail == nil || other.tail == nil {
		return k.sum == other.sum && k.tail == other.tail
	}
	return k.sum == other.sum && *k.tail == *other.tail
}

// index finds entries. It costs a quarter of a map by digest.
type index struct {
	first  map[uint64]*entry        // by prefix
	others map[digest.Digest]*entry // whose prefix is taken: somebody made them so
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

// put adds an entry in place of one with the same digest.
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

// all gives the entries in no particular order. The index may change between two of them.
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
