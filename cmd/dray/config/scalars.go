package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size: a whole number with an optional unit of powers of 1024 (KiB, MiB, GiB, TiB) or 1000 (kB, MB, GB, TB).
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

// UnmarshalText reads a size such as `200GiB`, `1500 MB` or `4096`.
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

// MarshalText writes the size with the largest unit that leaves a whole number.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String is the size with the largest unit that leaves a whole number.
func (b Bytes) String() string {
	for _, u := range byteUnits() {
		if b != 0 && int64(b)%u.size == 0 && u.size > 1 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Duration is a length of time as Go writes it, never negative; days are allowed too: `90s`, `10m`, `1h30m`, `7d`.
type Duration time.Duration

// UnmarshalText reads a duration such as `10m` or `7d`.
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

// MarshalText writes the duration without zero parts: `1h`, not `1h0m0s`.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String is the duration without zero parts: `1h`, not `1h0m0s`.
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

// Std is the duration as the standard library knows it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

const redacted = "[redacted]"

// errSecretInFile answers the attempt to write a secret into the file, where backups and reviews would carry it on.
var errSecretInFile = errors.New("a secret does not belong in this file; name a file or an environment variable that holds it")

// SecretURL is a URL whose password is not shown. Reveal gives the whole URL.
type SecretURL string

// Reveal is the URL with its password.
func (s SecretURL) Reveal() string { return string(s) }

// String is the URL without its password; what cannot be parsed is not shown at all.
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

// Format keeps every verb of package fmt from showing the password.
func (s SecretURL) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue keeps the password out of logs.
func (s SecretURL) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText keeps the password out of printed configurations.
func (s SecretURL) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the URL as it is.
func (s *SecretURL) UnmarshalText(text []byte) error {
	*s = SecretURL(text)
	return nil
}

// Role is what clients may do at a listener.
type Role string

// The two roles.
const (
	RoleMirror   Role = "mirror"   // pull
	RoleRegistry Role = "registry" // push and pull
)

// UnmarshalText accepts one of the roles.
func (r *Role) UnmarshalText(text []byte) error { return oneOf(r, text, RoleMirror, RoleRegistry) }

// Send is how blobs on disk are sent.
type Send string

// The ways to send.
const (
	SendSendfile Send = "sendfile"
	SendSplice   Send = "splice"
	SendCopy     Send = "copy"
)

// UnmarshalText accepts one of the ways.
func (s *Send) UnmarshalText(text []byte) error {
	return oneOf(s, text, SendSendfile, SendSplice, SendCopy)
}

// CreateMode says what becomes of repositories that are missing.
type CreateMode string

// The modes of creation.
const (
	CreateAll    CreateMode = "create"
	CreateDryRun CreateMode = "dry_run"
	CreateOff    CreateMode = "off"
)

// Creates says that somebody looks at what is missing; "" is the mode where nothing can be created.
func (m CreateMode) Creates() bool { return m == CreateAll || m == CreateDryRun }

// UnmarshalText accepts one of the modes.
func (m *CreateMode) UnmarshalText(text []byte) error {
	return oneOf(m, text, CreateAll, CreateDryRun, CreateOff)
}

// Kind is how an upstream is spoken to.
type Kind string

// The kinds of upstream.
const (
	KindOCI       Kind = "oci"
	KindECR       Kind = "ecr"
	KindECRPublic Kind = "ecr-public"
	KindLocal     Kind = "local"
)

// UnmarshalText accepts one of the kinds.
func (k *Kind) UnmarshalText(text []byte) error {
	return oneOf(k, text, KindOCI, KindECR, KindECRPublic, KindLocal)
}

// WriteBack says whether build caches that are kept aside are forwarded as well.
type WriteBack string

// The ways to write back.
const (
	WriteBackNever WriteBack = "never"
	WriteBackAsync WriteBack = "async"
)

// UnmarshalText accepts one of the ways.
func (w *WriteBack) UnmarshalText(text []byte) error {
	return oneOf(w, text, WriteBackNever, WriteBackAsync)
}

// Acknowledge is what must have happened to a push before the client is told that it succeeded.
type Acknowledge string

// The levels of acknowledgement.
const (
	AcknowledgeUpstream Acknowledge = "upstream"
	AcknowledgeLocal    Acknowledge = "local"
)

// UnmarshalText accepts one of the levels.
func (a *Acknowledge) UnmarshalText(text []byte) error {
	return oneOf(a, text, AcknowledgeUpstream, AcknowledgeLocal)
}

// WhenFull is what a push does that does not fit into an upstream of kind local.
type WhenFull string

// The answers to a push that does not fit.
const (
	WhenFullEvict  WhenFull = "evict"
	WhenFullRefuse WhenFull = "refuse"
)

// UnmarshalText accepts one of the answers.
func (w *WhenFull) UnmarshalText(text []byte) error {
	return oneOf(w, text, WhenFullEvict, WhenFullRefuse)
}

// Dimensions says by what CloudWatch metrics are told apart.
type Dimensions string

// The sets of dimensions.
const (
	DimensionsNone       Dimensions = "none"
	DimensionsRepository Dimensions = "repository"
	DimensionsImage      Dimensions = "image"
)

// UnmarshalText accepts one of the sets.
func (d *Dimensions) UnmarshalText(text []byte) error {
	return oneOf(d, text, DimensionsNone, DimensionsRepository, DimensionsImage)
}

// LogFormat is how a line of the log looks.
type LogFormat string

// The formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// UnmarshalText accepts one of the formats.
func (f *LogFormat) UnmarshalText(text []byte) error { return oneOf(f, text, LogText, LogJSON) }

// LogLevel is the least level that is written.
type LogLevel string

// UnmarshalText accepts one of the levels.
func (l *LogLevel) UnmarshalText(text []byte) error {
	return oneOf(l, text, "debug", "info", "warn", "error")
}

// Level is the level as package slog knows it; the zero value is info.
func (l LogLevel) Level() slog.Level {
	switch l {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// Port is a TCP port, 1 to 65535.
type Port uint16

// UnmarshalText reads a port; a leading colon does not count.
func (p *Port) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(strings.TrimPrefix(string(text), ":"), 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a port from 1 to 65535", text)
	}
	*p = Port(n)
	return nil
}

func oneOf[T ~string](to *T, text []byte, allowed ...T) error {
	if !slices.Contains(allowed, T(text)) {
		return fmt.Errorf("%q is none of %s", text, joinQuoted(allowed))
	}
	*to = T(text)
	return nil
}

func joinQuoted[T ~string](words []T) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = string(w)
	}
	return strings.Join(quoted, ", ")
}
