package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size: a whole number with an optional unit, which is a power of 1024 (KiB, MiB, GiB,
// TiB) or of 1000 (kB, MB, GB, TB).
type Bytes int64

type byteUnit struct {
	suffix string
	size   int64
}

// byteUnits lists the units. Larger units come first, because String uses the first unit that fits.
// `B` comes last, because the other units end in it.
func byteUnits() []byteUnit {
	return []byteUnit{
		{"TiB", 1 << 40}, {"TB", 1e12},
		{"GiB", 1 << 30}, {"GB", 1e9},
		{"MiB", 1 << 20}, {"MB", 1e6},
		{"KiB", 1 << 10}, {"kB", 1e3},
		{"B", 1},
	}
}

// UnmarshalText parses a size such as `200GiB`, `1500 MB` or `4096`.
func (b *Bytes) UnmarshalText(text []byte) error {
	s, unit := strings.TrimSpace(string(text)), int64(1)
	for _, u := range byteUnits() {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			s, unit = strings.TrimRight(rest, " "), u.size
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if errors.Is(err, strconv.ErrRange) || err == nil && int64(n) > math.MaxInt64/unit {
		return fmt.Errorf("%q is too large", text)
	}
	if err != nil {
		return fmt.Errorf("%q is not a size; %s", text, sizeHint(strings.TrimSpace(string(text))))
	}
	*b = Bytes(int64(n) * unit)
	return nil
}

// sizeHint says how to write the invalid size s. For 200Gi, it suggests 200GiB.
func sizeHint(s string) string {
	number := strings.TrimRight(s, "BbGgIiKkMmTt ")
	for _, u := range byteUnits() {
		unit := strings.TrimSpace(s[len(number):])
		if _, err := strconv.ParseUint(number, 10, 63); err == nil && (strings.EqualFold(unit, u.suffix) || strings.EqualFold(unit+"B", u.suffix)) {
			return "did you mean " + number + u.suffix + "?"
		}
	}
	return "write one like 200GiB, 500MB or 4096"
}

// MarshalText formats the size like String.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String formats the size with the largest unit that leaves a whole number.
func (b Bytes) String() string {
	for _, u := range byteUnits() {
		if b != 0 && int64(b)%u.size == 0 && u.size > 1 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Duration is a duration in Go's format, or a number of days: `90s`, `10m`, `1h30m`, `7d`. The
// configuration cannot give a negative duration.
type Duration time.Duration

// UnmarshalText parses a duration such as `10m` or `7d`.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is not a duration; write one like 90s, 10m or 7d", text)
		}
		*d = Duration(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a duration; write one like 90s, 10m or 7d", text)
	case v < 0:
		return fmt.Errorf("%q is negative", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText formats the duration like String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String formats the duration without trailing zero parts: `1h`, not `1h0m0s`.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Std returns the duration as a [time.Duration].
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Port is a TCP port, 1 to 65535.
type Port uint16

// UnmarshalText parses a port; it ignores a leading colon.
func (p *Port) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(strings.TrimPrefix(string(text), ":"), 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a port from 1 to 65535", text)
	}
	*p = Port(n)
	return nil
}

// Network is a network of IP addresses, such as `10.0.0.0/8`, or a single address.
type Network struct{ netip.Prefix }

// UnmarshalText parses a network or an address.
func (n *Network) UnmarshalText(text []byte) error {
	s := string(text)
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		n.Prefix = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		return nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return fmt.Errorf("%q is not a network; write one like 10.0.0.0/8, fd00::/8 or 10.1.2.3", text)
	}
	n.Prefix = p.Masked()
	return nil
}
