package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"regexp"
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

// errSecretInFile refuses a secret in the configuration file, because it would get into backups and
// reviews from there.
var errSecretInFile = errors.New("secrets are not allowed in this file; set the name of a file or of an environment variable that contains it")

// SecretURL is a URL whose secrets are redacted when printed. Reveal returns the whole URL.
type SecretURL string

// Reveal returns the URL with its secrets.
func (s SecretURL) Reveal() string { return string(s) }

// String returns the URL with its secrets redacted. In a URL for Redis (redis, rediss or unix),
// these are the password, and parameters with names like that of a secret. Of an http or https URL,
// only the scheme and the host remain, because services accept tokens as user, in the path and in
// the query. Any other URL is redacted as a whole.
func (s SecretURL) String() string {
	u, err := url.Parse(string(s))
	switch {
	case s == "":
		return ""
	case err != nil || u.Opaque != "":
		return redacted
	case u.Scheme == "http" || u.Scheme == "https":
		shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
		if strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			shown.Path = "/redacted"
		}
		return shown.String()
	case u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix":
		return redacted
	}
	if _, ok := u.User.Password(); ok {
		u.User = url.UserPassword(u.User.Username(), "redacted")
	}
	query := u.Query()
	for key := range query {
		if secretName.MatchString(key) {
			query.Set(key, "redacted")
			u.RawQuery = query.Encode()
		}
	}
	return u.String()
}

// Format implements fmt.Formatter, so that no verb shows the secrets.
func (s SecretURL) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue implements slog.LogValuer, so that logs do not show the secrets.
func (s SecretURL) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns the redacted URL, for printed configurations.
func (s SecretURL) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText sets the URL without parsing it.
func (s *SecretURL) UnmarshalText(text []byte) error {
	*s = SecretURL(text)
	return nil
}

// secretName matches names of flags, variables and parameters whose values are secrets.
var secretName = regexp.MustCompile(`(?i)pass|pwd|token|secret|key|credential|auth`)

// Command is a program and its arguments. When it is printed, the value of a flag or variable with
// a name like --token is redacted, and every URL is shown like a [SecretURL].
type Command []string

// Redacted returns the command without the secrets.
func (c Command) Redacted() []string {
	shown := make([]string, len(c))
	hide := false // the flag before this argument takes a secret
	for i, arg := range c {
		name, value, assigned := strings.Cut(arg, "=")
		u, err := url.Parse(arg)
		switch {
		case i > 0 && hide && !strings.HasPrefix(arg, "-"):
			shown[i] = redacted
		case err == nil && u.Host != "":
			shown[i] = SecretURL(arg).String()
		case i > 0 && assigned && secretName.MatchString(name):
			shown[i] = name + "=" + redacted
		case i > 0 && assigned && strings.Contains(value, "://"):
			shown[i] = name + "=" + SecretURL(value).String()
		default:
			shown[i] = arg
		}
		hide = strings.HasPrefix(arg, "-") && !assigned && secretName.MatchString(arg)
	}
	return shown
}

// Format implements fmt.Formatter, so that no verb shows the secrets.
func (c Command) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, c.Redacted()) }

// LogValue implements slog.LogValuer, so that logs do not show the secrets.
func (c Command) LogValue() slog.Value { return slog.StringValue(strings.Join(c.Redacted(), " ")) }

// MarshalYAML returns the redacted command, for printed configurations.
func (c Command) MarshalYAML() (any, error) { return c.Redacted(), nil }

// Variable is a variable for a program, as NAME=value. Its value is redacted when printed.
type Variable string

// Reveal returns the variable with its value.
func (v Variable) Reveal() string { return string(v) }

// String returns the name of the variable with a redacted value.
func (v Variable) String() string {
	name, _, ok := strings.Cut(string(v), "=")
	if !ok {
		return redacted
	}
	return name + "=" + redacted
}

// Format implements fmt.Formatter, so that no verb shows the value.
func (v Variable) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(v.String())) }

// LogValue implements slog.LogValuer, so that logs do not show the value.
func (v Variable) LogValue() slog.Value { return slog.StringValue(v.String()) }

// MarshalText formats the variable like String, for printed configurations.
func (v Variable) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText sets the variable, which must be NAME=value. The error does not contain the value.
func (v *Variable) UnmarshalText(text []byte) error {
	if name, _, ok := strings.Cut(string(text), "="); !ok || name == "" {
		return errors.New("must be a variable as NAME=value")
	}
	*v = Variable(text)
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
