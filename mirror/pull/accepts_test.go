package pull

import (
	"fmt"
	"slices"
	"testing"
)

// TestAccepts: the newest kinds of clients are remembered, each once.
func TestAccepts(t *testing.T) {
	var a accepts
	for _, key := range []string{"x", "y", "x", "x"} {
		a.add(key)
	}
	if got := a.others("z"); !slices.Equal(got, []string{"y", "x"}) {
		t.Errorf("%q", got)
	}
	if got := a.others("x"); !slices.Equal(got, []string{"y"}) {
		t.Errorf("without x: %q", got)
	}
	for i := range 2 * mostAccepts {
		a.add(fmt.Sprint(i))
	}
	if got := a.others(""); len(got) != mostAccepts || got[0] != fmt.Sprint(mostAccepts) {
		t.Errorf("%q", got)
	}
}
