package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size: a whole number with an optional unit of powers of 1024 (KiB, MiB, GiB, TiB) or
// 1000 (kB, MB, GB, TB).
type Bytes int64

type byteUnit struct {
	suffix string
	size   int64
}

// byteUnits lists the units, larger ones first and `B` last, because every other unit ends in it.
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
		return fmt.Errorf("%q is not a size; write one like 200GiB, 500MB or 4096", text)
	}
	*b = Bytes(int64(n) * unit)
	return nil
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
// configuration cannot give a negative one.
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

// Std converts the duration to that of the standard library.
func (d Duration) Std() time.Duration { return time.Duration(d) }

const redacted = "[redacted]"

// errSecretInFile refuses a secret in the file, from where it would get into backups and reviews.
var errSecretInFile = errors.New("secrets are not allowed in this file; set the name of a file or of an environment variable that contains it")

// SecretURL is a URL whose password is redacted when printed. Reveal returns the whole URL.
type SecretURL string

// Reveal returns the URL with its password.
func (s SecretURL) Reveal() string { return string(s) }

// String returns the URL with its password redacted. A URL that cannot be parsed is redacted as a
// whole.
func (s SecretURL) String() string {
	u, err := url.Parse(string(s))
	if err != nil {
		return redacted
	}
	if _, ok := u.User.Password(); ok {
		u.User = url.UserPassword(u.User.Username(), "redacted")
	}
	query := u.Query()
	for key := range query {
		if strings.Contains(strings.ToLower(key), "password") {
			query.Set(key, "redacted")
			u.RawQuery = query.Encode()
		}
	}
	return u.String()
}

// Format implements fmt.Formatter, so that no verb shows the password.
func (s SecretURL) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue implements slog.LogValuer, so that logs do not show the password.
func (s SecretURL) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns the redacted URL, for printed configurations.
func (s SecretURL) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText sets the URL without parsing it.
func (s *SecretURL) UnmarshalText(text []byte) error {
	*s = SecretURL(text)
	return nil
}

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
