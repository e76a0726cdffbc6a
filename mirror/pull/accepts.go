package pull

import (
	"slices"
	"sync"
)

// mostAccepts bounds the number of keys in an accepts. The clients of a machine or cluster need
// only a few.
const mostAccepts = 16

// accepts remembers the keys with which clients last asked about tags, each key once. A key is the
// normalised form of a client's Accept lines. A registry may answer different Accept lines with
// different manifests, so dray stores one fact about a tag for each key. If the registry fails,
// dray looks under the keys that are remembered here for an answer that another client got.
type accepts struct {
	mu   sync.Mutex
	keys []string // the last one is the newest
}

// add remembers the key of a question.
func (a *accepts) add(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.keys); n > 0 && a.keys[n-1] == key {
		return
	}
	a.keys = slices.DeleteFunc(a.keys, func(k string) bool { return k == key })
	a.keys = append(a.keys, key)
	a.keys = a.keys[max(0, len(a.keys)-mostAccepts):]
}

// others returns the remembered keys except the given one.
func (a *accepts) others(key string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(a.keys), func(k string) bool { return k == key })
}
