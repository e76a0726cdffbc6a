package redis

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// ErrURL says that a URL names no Redis. Its text never holds the URL, which
// may hold a password.
var ErrURL = errors.New("not a redis URL")

// connect makes the client a URL asks for.
func connect(rawURL string, timeout time.Duration) (goredis.UniversalClient, error) {
	// The client has one log for the process, which writes every failure to
	// standard error; we return them.
	logging.Disable()
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok {
		return nil, fmt.Errorf("%w: no scheme", ErrURL)
	}
	base, kind, _ := strings.Cut(scheme, "+")
	plain := base + "://" + rest
	switch {
	case kind == "":
		return single(plain, timeout)
	case kind == "sentinel" && base != "unix":
		return sentinel(plain, timeout)
	case kind == "cluster" && base != "unix":
		return cluster(plain, timeout)
	}
	return nil, fmt.Errorf("%w: scheme %q", ErrURL, scheme)
}

// conceal drops what the parsers quote of a URL: net/url repeats all of it.
func conceal(err error) error {
	if parse, ok := errors.AsType[*url.Error](err); ok {
		err = parse.Err
	}
	return fmt.Errorf("%w: %w", ErrURL, err)
}

func single(plain string, timeout time.Duration) (goredis.UniversalClient, error) {
	o, err := goredis.ParseURL(plain)
	if err != nil {
		return nil, conceal(err)
	}
	// Nobody retries below a store, and the context bounds what it asks for.
	o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = -1, 1, true
	unlessGiven(timeout, &o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout, &o.PoolTimeout)
	o.MaintNotificationsConfig = noMaintenance()
	return goredis.NewClient(o), nil
}

func sentinel(plain string, timeout time.Duration) (goredis.UniversalClient, error) {
	o, err := goredis.ParseFailoverURL(plain)
	if err != nil {
		return nil, conceal(err)
	}
	if o.MasterName == "" {
		return nil, fmt.Errorf("%w: master_name is missing", ErrURL)
	}
	o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = -1, 1, true
	unlessGiven(timeout, &o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout, &o.PoolTimeout)
	return goredis.NewFailoverClient(o), nil
}

func cluster(plain string, timeout time.Duration) (goredis.UniversalClient, error) {
	o, err := goredis.ParseClusterURL(plain)
	if err != nil {
		return nil, conceal(err)
	}
	// Redirects are no retries: a cluster answers with them in good health.
	o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = -1, 1, true
	unlessGiven(timeout, &o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout, &o.PoolTimeout)
	o.MaintNotificationsConfig = noMaintenance()
	return goredis.NewClusterClient(o), nil
}

// unlessGiven sets the bounds that the URL does not.
func unlessGiven(timeout time.Duration, bounds ...*time.Duration) {
	for _, b := range bounds {
		*b = cmp.Or(*b, timeout)
	}
}

// noMaintenance keeps the client from subscribing to maintenance notices on
// every connection, which only one vendor's service sends.
func noMaintenance() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}
