package api

import (
	"math"
	"testing"
)

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", -999_950: "-1.0 MB", 19_800_000: "19.8 MB", -2500: "-2.5 kB", -1: "-1 B", math.MinInt64: "-9.2 EB", 9_223_372_036_854_775_807: "9.2 EB"} {
		if got := Size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
