package config

import (
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
)

// enum is a type of texts of which few are allowed.
type enum struct {
	typ   reflect.Type
	words []string
}

func enumOf[T ~string](allowed ...T) enum {
	e := enum{typ: reflect.TypeFor[T]()}
	for _, word := range allowed {
		e.words = append(e.words, string(word))
	}
	return e
}

// enums lists the types of texts of which few are allowed.
func enums() []enum {
	return []enum{
		enumOf(RoleMirror, RoleRegistry),
		enumOf(SendSendfile, SendSplice, SendCopy),
		enumOf(CreateAll, CreateDryRun, CreateOff),
		enumOf(KindOCI, KindECR, KindECRPublic, KindLocal),
		enumOf(WriteBackNever, WriteBackAsync),
		enumOf(AcknowledgeUpstream, AcknowledgeLocal),
		enumOf(WhenFullEvict, WhenFullRefuse),
		enumOf(DimensionsNone, DimensionsRepository, DimensionsImage),
		enumOf(LogText, LogJSON),
		enumOf(LogDebug, LogInfo, LogWarn, LogError),
		enumOf(ForwardEarly, ForwardHold),
		enumOf(DigestHold, DigestForward),
		enumOf(UnseenScan, UnseenTrust),
		enumOf(Enforce, Warn, Off),
		enumOf(Reject, Allow),
		enumOf(UnknownReject, UnknownPass),
	}
}

// Words are the texts that a value of type t may be, in the order in which problems name them; none
// where t is no such type.
func Words(t reflect.Type) []string {
	for _, e := range enums() {
		if e.typ == t {
			return e.words
		}
	}
	return nil
}

// oneOf accepts a text that a value of type t may be.
func oneOf(t reflect.Type, text string) error {
	if words := Words(t); !slices.Contains(words, text) {
		return fmt.Errorf("%q is none of %s", text, strings.Join(words, ", "))
	}
	return nil
}

// Role is what clients may do at a listener.
type Role string

// The two roles.
const (
	RoleMirror   Role = "mirror"   // pull
	RoleRegistry Role = "registry" // push and pull
)

// Send is how blobs on disk are sent.
type Send string

// The ways to send.
const (
	SendSendfile Send = "sendfile"
	SendSplice   Send = "splice"
	SendCopy     Send = "copy"
)

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

// Kind is how an upstream is spoken to.
type Kind string

// The kinds of upstream.
const (
	KindOCI       Kind = "oci"
	KindECR       Kind = "ecr"
	KindECRPublic Kind = "ecr-public"
	KindLocal     Kind = "local"
)

// WriteBack says whether build caches that are kept aside are forwarded as well.
type WriteBack string

// The ways to write back.
const (
	WriteBackNever WriteBack = "never"
	WriteBackAsync WriteBack = "async"
)

// Acknowledge is what must have happened to a push before the client is told that it succeeded.
type Acknowledge string

// The levels of acknowledgement.
const (
	AcknowledgeUpstream Acknowledge = "upstream"
	AcknowledgeLocal    Acknowledge = "local"
)

// WhenFull is what a push does that does not fit into an upstream of kind local.
type WhenFull string

// The answers to a push that does not fit.
const (
	WhenFullEvict  WhenFull = "evict"
	WhenFullRefuse WhenFull = "refuse"
)

// Dimensions says by what CloudWatch metrics are told apart.
type Dimensions string

// The sets of dimensions.
const (
	DimensionsNone       Dimensions = "none"
	DimensionsRepository Dimensions = "repository"
	DimensionsImage      Dimensions = "image"
)

// LogFormat is how a line of the log looks.
type LogFormat string

// The formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// LogLevel is the least level that is written.
type LogLevel string

// The levels.
const (
	LogDebug LogLevel = "debug"
	LogInfo  LogLevel = "info"
	LogWarn  LogLevel = "warn"
	LogError LogLevel = "error"
)

// Level is the level as package slog knows it; the zero value is info.
func (l LogLevel) Level() slog.Level {
	switch l {
	case LogDebug:
		return slog.LevelDebug
	case LogWarn:
		return slog.LevelWarn
	case LogError:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// ForwardWhen is when layers flow on.
type ForwardWhen string

// The times.
const (
	ForwardEarly ForwardWhen = "early"
	ForwardHold  ForwardWhen = "hold"
)

// DigestPush is what becomes of manifests pushed by digest.
type DigestPush string

// The two ways.
const (
	DigestHold    DigestPush = "hold"
	DigestForward DigestPush = "forward"
)

// UnseenLayers is what becomes of layers that no client sent.
type UnseenLayers string

// The two ways.
const (
	UnseenScan  UnseenLayers = "scan"
	UnseenTrust UnseenLayers = "trust"
)

// CheckMode is what becomes of the findings of a stage.
type CheckMode string

// The modes.
const (
	Enforce CheckMode = "enforce"
	Warn    CheckMode = "warn"
	Off     CheckMode = "off"
)

// On reports whether the stage runs.
func (m CheckMode) On() bool {
	return m == Enforce || m == Warn
}

// OnError is what becomes of an image about which a stage could not tell.
type OnError string

// The answers.
const (
	Reject OnError = "reject"
	Allow  OnError = "warn"
)

// UnknownBase is what becomes of images that are built on none that is known.
type UnknownBase string

// The two ways.
const (
	UnknownReject UnknownBase = "reject"
	UnknownPass   UnknownBase = "pass"
)
