package turns_test

import (
	"math/rand/v2"
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
	if n := q.Ahead("b"); n != 4 { // two of a, one of b, and one of c
		t.Errorf("%d requests before a second one of b, want 4", n)
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

// Ahead counts what Pop returns before a request that joins, whatever the queue has been through.
func TestAheadIsTheOrderOfPop(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var q turns.Queue
		for range chance.IntN(20) {
			q.Push(&turns.Waiter{Flow: string(rune('a' + chance.IntN(4)))})
			if chance.IntN(3) == 0 {
				q.Pop()
			}
		}
		joins := &turns.Waiter{Flow: string(rune('a' + chance.IntN(5)))}
		told, before := q.Ahead(joins.Flow), 0
		q.Push(joins)
		for q.Pop() != joins {
			before++
		}
		if told != before {
			t.Fatalf("%d requests before one of %s, told %d", before, joins.Flow, told)
		}
	}
}
