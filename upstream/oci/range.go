package oci

import (
	"strconv"
	"strings"
)

// Range is a part of a body: Length bytes from offset Start.
type Range struct{ Start, Length int64 }

// ContentRange returns the Content-Range header for the part r of a body that has size bytes.
func (r Range) ContentRange(size int64) string {
	b := strconv.AppendInt(append(make([]byte, 0, 70), "bytes "...), r.Start, 10)
	b = strconv.AppendInt(append(b, '-'), r.Start+r.Length-1, 10)
	return string(strconv.AppendInt(append(b, '/'), size, 10))
}

// ParseRange parses a Range header (RFC 9110, 14.2) for a body of size bytes. It returns false if
// the whole body should be sent: if there is no header, if its unit is not bytes, if it has several
// ranges (which a server need not serve), or if the body is empty (containerd asks for a range of
// an empty blob). The error is ErrRangeInvalid if the range is malformed or outside the body.
func ParseRange(header string, size int64) (Range, bool, error) {
	unit, set, ok := strings.Cut(header, "=")
	if header == "" || size == 0 || ok && !strings.EqualFold(strings.TrimSpace(unit), "bytes") || strings.Contains(set, ",") {
		return Range{}, false, nil
	}
	first, last, dash := strings.Cut(strings.TrimSpace(set), "-")
	if !ok || !dash || first == "" && last == "" {
		return Range{}, false, ErrRangeInvalid.With("malformed range %q", clip(header))
	}
	r, err := bounds(first, last, size)
	if err != nil {
		return Range{}, false, ErrRangeInvalid.With("range %q does not fit %d bytes", clip(header), size)
	}
	return r, true, nil
}

func bounds(first, last string, size int64) (Range, error) {
	if first == "" { // the last n bytes
		n, err := parseOffset(last)
		if err != nil || n == 0 || size == 0 {
			return Range{}, strconv.ErrRange
		}
		n = min(n, size)
		return Range{size - n, n}, nil
	}
	start, err := parseOffset(first)
	if err != nil || start >= size {
		return Range{}, strconv.ErrRange
	}
	end := size - 1
	if last != "" {
		if end, err = parseOffset(last); err != nil || end < start {
			return Range{}, strconv.ErrRange
		}
		end = min(end, size-1)
	}
	return Range{start, end - start + 1}, nil
}

// parseOffset parses digits only: ParseInt alone would accept a sign.
func parseOffset(s string) (int64, error) {
	if strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseInt(s, 10, 64)
}

// ParseContentRange parses the Content-Range of an uploaded chunk (spec, "Pushing a blob in
// chunks"): "<first>-<last>", without a unit. Some clients add a unit and a total, which
// ParseContentRange ignores. For any other form, the error is ErrBlobUploadInvalid.
func ParseContentRange(header string) (Range, error) {
	bad := ErrBlobUploadInvalid.With("malformed Content-Range %q", clip(header))
	s := strings.TrimPrefix(strings.TrimPrefix(header, "bytes "), "bytes=")
	s, _, _ = strings.Cut(s, "/")
	first, last, ok := strings.Cut(s, "-")
	start, err1 := parseOffset(first)
	end, err2 := parseOffset(last)
	if !ok || first == "" || last == "" || err1 != nil || err2 != nil || end < start || end-start+1 <= 0 {
		return Range{}, bad
	}
	return Range{start, end - start + 1}, nil
}
