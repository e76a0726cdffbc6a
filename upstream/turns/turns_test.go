package turns_test

import (
	"testing"

	"dray/upstream/turns"
)

func TestFlowsTakeTurns(t *testing.T) {
	var q turns.Queue
	var last *turns.Waiter
	for _, flow := range []string{"a", "a", "a", "b", "c", "c"} {
		last = &turns.Waiter{Flow: flow, Ready: make(chan error, 1)}
		q.Push(last)
	}
	if n := q.Ahead("b"); n != 5 { // one of b, two of a and of c
		t.Errorf("%d requests before a second one of b, want 5", n)
	}
	if w := q.RemoveNewest(3); w != nil {
		t.Errorf("a request of %s is removed; no flow has more than 3", w.Flow)
	}
	if w := q.RemoveNewest(2); w == nil || w.Flow != "a" {
		t.Errorf("%v is removed, want the newest request of a", w)
	}
	q.Remove(last)
	q.Remove(last)
	order := ""
	for q.Size() > 0 {
		order += q.Pop().Flow
	}
	if order != "abca" {
		t.Errorf("requests are sent in the order %s, want abca", order)
	}
}
