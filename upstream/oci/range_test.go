package oci_test

import (
	"errors"
	"testing"

	"dray/upstream/oci"
)

func TestParseRange(t *testing.T) {
	for _, tc := range []struct {
		header string
		size   int64
		want   oci.Range
		part   bool
		err    error
	}{
		{"", 10, oci.Range{}, false, nil},
		{"bytes=0-", 10, oci.Range{Start: 0, Length: 10}, true, nil},
		{"bytes=3-", 10, oci.Range{Start: 3, Length: 7}, true, nil},
		{"bytes=3-5", 10, oci.Range{Start: 3, Length: 3}, true, nil},
		{"Bytes=3-500", 10, oci.Range{Start: 3, Length: 7}, true, nil},
		{"bytes=-4", 10, oci.Range{Start: 6, Length: 4}, true, nil},
		{"bytes=-40", 10, oci.Range{Start: 0, Length: 10}, true, nil},
		{"bytes=0-1,3-4", 10, oci.Range{}, false, nil},
		{"lines=1-2", 10, oci.Range{}, false, nil},
		{"bytes=10-", 10, oci.Range{}, false, oci.ErrRangeInvalid},
		{"bytes=5-3", 10, oci.Range{}, false, oci.ErrRangeInvalid},
		{"bytes=-0", 10, oci.Range{}, false, oci.ErrRangeInvalid},
		{"bytes=-", 10, oci.Range{}, false, oci.ErrRangeInvalid},
		{"bytes=a-b", 10, oci.Range{}, false, oci.ErrRangeInvalid},
		{"bytes=+1-2", 10, oci.Range{}, false, oci.ErrRangeInvalid},
		{"bytes", 10, oci.Range{}, false, oci.ErrRangeInvalid},
		{"bytes=99999999999999999999-", 10, oci.Range{}, false, oci.ErrRangeInvalid},
		{"bytes=0-", 0, oci.Range{}, false, nil},
	} {
		got, part, err := oci.ParseRange(tc.header, tc.size)
		if got != tc.want || part != tc.part || !errors.Is(err, tc.err) {
			t.Errorf("%q of %d: got %+v %v %v", tc.header, tc.size, got, part, err)
		}
	}
}

func TestParseContentRange(t *testing.T) {
	for header, want := range map[string]oci.Range{
		"0-1048575":             {Start: 0, Length: 1 << 20},
		"bytes 5-9/10":          {Start: 5, Length: 5},
		"bytes=7-7":             {Start: 7, Length: 1},
		"":                      {},
		"5-":                    {},
		"-5":                    {},
		"9-5":                   {},
		"x-y":                   {},
		"0-9223372036854775807": {},
	} {
		got, err := oci.ParseContentRange(header)
		if got != want || (err != nil) != (want == oci.Range{}) {
			t.Errorf("%q: got %+v, %v", header, got, err)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	f.Add("bytes=0-5", int64(10))
	f.Add("bytes=-5", int64(3))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			t.Skip()
		}
		r, part, err := oci.ParseRange(header, size)
		if err == nil && part && (r.Start < 0 || r.Length <= 0 || r.Start+r.Length > size) {
			t.Fatalf("%q of %d: %+v", header, size, r)
		}
		if c, err := oci.ParseContentRange(header); err == nil && (c.Start < 0 || c.Length <= 0) {
			t.Fatalf("%q: %+v", header, c)
		}
	})
}
