package pull

import (
	"slices"
	"sync"
)

// mostAccepts bounds how many kinds of clients are remembered. A machine or cluster has a few.
const mostAccepts = 16

// accepts remembers the normalised Accept lines of the last questions, each once. A registry may
// answer clients with other lines by other manifests, so facts about tags are stored for each. If
// the registry fails, an answer to another kind of client is looked for among those that are
// remembered here.
type accepts struct {
	mu   sync.Mutex
	keys []string // the last one is the newest
}

// add remembers the lines of a question.
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

// others returns what is remembered besides key.
func (a *accepts) others(key string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(a.keys), func(k string) bool { return k == key })
}
