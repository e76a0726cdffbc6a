package push

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"dray/upstream/oci"
)

// A client has its bound of uploads and of bytes, and every other client its own.
func TestQuotas(t *testing.T) {
	q := NewQuotas(2, 100)
	full := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, oci.ErrTooManyRequests) {
			t.Errorf("%s: %v", what, err)
		}
	}
	never := func(what string, err error) {
		t.Helper()
		if e, ok := errors.AsType[*oci.Error](err); !ok || e.Status != http.StatusRequestEntityTooLarge || !strings.Contains(e.Message, "limits.max_upload_bytes_per_client") {
			t.Errorf("%s: %v", what, err)
		}
	}
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	must("the first upload", q.begin("a"))
	must("the second upload", q.begin("a"))
	full("the third upload", q.begin("a"))
	must("another client's upload", q.begin("b"))
	q.end("a")
	must("an upload after the end of another", q.begin("a"))

	must("as many bytes as there may be", q.fits("a", 0, 100))
	never("one byte more", q.fits("a", 0, 101))
	must("60 bytes", q.charge("a", 0, 60))
	never("41 bytes more of one upload", q.charge("a", 60, 41))
	full("41 bytes of another upload", q.charge("a", 0, 41))
	must("40 bytes more: the refused ones do not count", q.charge("a", 60, 40))
	must("another client's bytes", q.charge("b", 0, 100))
	q.Refund("a", 50)
	must("50 bytes after a refund", q.fits("a", 0, 50))

	q.count("a", 5, 500) // a former process had larger bounds
	full("an upload beside those of a former process", q.begin("a"))
	full("a byte beside those of a former process", q.charge("a", 0, 1))

	for range 2 + 5 {
		q.end("a")
	}
	q.Refund("a", 550)
	q.end("b")
	q.Refund("b", 100)
	if len(q.byOwner) != 0 {
		t.Errorf("of %d clients something is left", len(q.byOwner))
	}
}

// Zero is no bound.
func TestQuotasUnbounded(t *testing.T) {
	q := NewQuotas(0, 0)
	for range 1000 {
		if err := errors.Join(q.begin("a"), q.fits("a", 1<<40, 1<<40), q.charge("a", 1<<40, 1<<40)); err != nil {
			t.Fatal(err)
		}
	}
}
