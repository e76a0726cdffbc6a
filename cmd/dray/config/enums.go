package config

import (
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
)

// enum is a string type with a fixed set of values.
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

// enums lists the string types with a fixed set of values.
func enums() []enum {
	return []enum{
		enumOf(RoleMirror, RoleRegistry),
		enumOf(SendSendfile, SendSplice, SendCopy),
		enumOf(ForwardedFor, Forwarded),
		enumOf(CreateAll, CreateDryRun, CreateOff),
		enumOf(KindOCI, KindECR, KindECRPublic, KindLocal),
		enumOf(FallbackOnFailure, FallbackOnNotFound),
		enumOf(PathNAT, PathEndpoint, PathInternet, PathRegion),
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

// Words returns the values of type t in the order in which error messages list them, or nil if t is
// not an enum.
func Words(t reflect.Type) []string {
	for _, e := range enums() {
		if e.typ == t {
			return e.words
		}
	}
	return nil
}

// oneOf returns an error unless text is a value of type t.
func oneOf(t reflect.Type, text string) error {
	if words := Words(t); !slices.Contains(words, text) {
		return fmt.Errorf("%q is not one of %s", text, strings.Join(words, ", "))
	}
	return nil
}

// Role says which requests a listener allows.
type Role string

// The two roles.
const (
	RoleMirror   Role = "mirror"   // pull
	RoleRegistry Role = "registry" // push and pull
)

// Send is the way in which a listener sends blobs from disk.
type Send string

// The ways to send.
const (
	SendSendfile Send = "sendfile"
	SendSplice   Send = "splice"
	SendCopy     Send = "copy"
)

// ForwardedHeader is the header in which proxies name the client.
type ForwardedHeader string

// The headers.
const (
	ForwardedFor ForwardedHeader = "X-Forwarded-For"
	Forwarded    ForwardedHeader = "Forwarded"
)

// CreateMode says whether dray creates missing repositories.
type CreateMode string

// The modes of creation.
const (
	CreateAll    CreateMode = "create"
	CreateDryRun CreateMode = "dry_run"
	CreateOff    CreateMode = "off"
)

// Creates reports whether dray handles missing repositories, by creating them or by a dry run. The
// mode is "" for upstreams where dray cannot create repositories.
func (m CreateMode) Creates() bool { return m == CreateAll || m == CreateDryRun }

// Kind is the kind of registry behind an upstream.
type Kind string

// The kinds of upstream.
const (
	KindOCI       Kind = "oci"
	KindECR       Kind = "ecr"
	KindECRPublic Kind = "ecr-public"
	KindLocal     Kind = "local"
)

// SavingsPath is the network route that content would take from a registry to clients if there were
// no dray.
type SavingsPath string

// The paths.
const (
	PathNAT      SavingsPath = "nat"
	PathEndpoint SavingsPath = "endpoint"
	PathInternet SavingsPath = "internet"
	PathRegion   SavingsPath = "region"
)

// WriteBack says whether dray, after it has stored a build cache in a hosted repository, also
// forwards it to the upstream.
type WriteBack string

// The ways to write back.
const (
	WriteBackNever WriteBack = "never"
	WriteBackAsync WriteBack = "async"
)

// Acknowledge is the place that must have an image before dray acknowledges its push.
type Acknowledge string

// The levels of acknowledgement.
const (
	AcknowledgeUpstream Acknowledge = "upstream"
	AcknowledgeLocal    Acknowledge = "local"
)

// WhenFull is the answer to a push that does not fit into an upstream of kind local.
type WhenFull string

// The answers.
const (
	WhenFullEvict  WhenFull = "evict"
	WhenFullRefuse WhenFull = "refuse"
)

// Dimensions is the set of dimensions of the CloudWatch metric.
type Dimensions string

// The sets of dimensions.
const (
	DimensionsNone       Dimensions = "none"
	DimensionsRepository Dimensions = "repository"
	DimensionsImage      Dimensions = "image"
)

// LogFormat is the format of log lines.
type LogFormat string

// The formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// LogLevel is the lowest level that is logged.
type LogLevel string

// The levels.
const (
	LogDebug LogLevel = "debug"
	LogInfo  LogLevel = "info"
	LogWarn  LogLevel = "warn"
	LogError LogLevel = "error"
)

// Level returns the level of package slog; the zero value is info.
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

// ForwardWhen is the time at which dray forwards layers that it checks.
type ForwardWhen string

// The times.
const (
	ForwardEarly ForwardWhen = "early"
	ForwardHold  ForwardWhen = "hold"
)

// DigestPush is the handling of manifests that clients push by digest.
type DigestPush string

// The two ways.
const (
	DigestHold    DigestPush = "hold"
	DigestForward DigestPush = "forward"
)

// UnseenLayers is the handling of layers that the client did not send.
type UnseenLayers string

// The two ways.
const (
	UnseenScan  UnseenLayers = "scan"
	UnseenTrust UnseenLayers = "trust"
)

// CheckMode is the action on the findings of a stage.
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

// OnError is the answer to an image that a stage could not judge.
type OnError string

// The answers.
const (
	Reject OnError = "reject"
	Allow  OnError = "warn"
)

// UnknownBase is the answer to an image whose base image dray does not know.
type UnknownBase string

// The two ways.
const (
	UnknownReject UnknownBase = "reject"
	UnknownPass   UnknownBase = "pass"
)
