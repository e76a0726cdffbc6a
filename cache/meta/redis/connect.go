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

// ErrURL says that a URL does not name a Redis. The text of the error never has the URL, because
// the URL may have a password.
var ErrURL = errors.New("not a redis URL")

// connect returns a client for a URL. password may be nil, as in [Options].
func connect(rawURL string, password func() string, timeout time.Duration) (goredis.UniversalClient, error) {
	// The library has one log for the whole process, which writes every failure to standard error. We
	// return failures instead.
	logging.Disable()
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok {
		return nil, fmt.Errorf("%w: no scheme", ErrURL)
	}
	base, kind, _ := strings.Cut(scheme, "+")
	plain := base + "://" + rest
	switch {
	case kind == "":
		return single(plain, password, timeout)
	case kind == "sentinel" && base != "unix":
		return sentinel(plain, password, timeout)
	case kind == "cluster" && base != "unix":
		return cluster(plain, password, timeout)
	}
	return nil, fmt.Errorf("%w: scheme %q", ErrURL, scheme)
}

// errSpecial replaces errors that may quote a part of the password.
var errSpecial = errors.New("the parts of the URL cannot be told apart; write %2F for /, %3F for ?, %23 for # and %40 for @ in its user and password")

// conceal returns an error for a URL that a parser refused with err. If err may quote a part of the
// password, errSpecial takes its place. There are two such cases. First, net/url quotes parts of a
// URL that it cannot parse. Second, if a password contains /, ? or #, the parser takes the rest of
// the password, with the @ behind it, for a path, query or fragment, which err may quote. An @ in
// one of these shows this case.
func conceal(plain string, err error) error {
	if u, failed := url.Parse(plain); failed != nil || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
		err = errSpecial
	}
	return fmt.Errorf("%w: %w", ErrURL, err)
}

func single(plain string, password func() string, timeout time.Duration) (goredis.UniversalClient, error) {
	o, err := goredis.ParseURL(plain)
	if err != nil {
		return nil, conceal(plain, err)
	}
	// A meta.Store does not retry, and the context bounds each request.
	o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = -1, 1, true
	setDefault(timeout, &o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout, &o.PoolTimeout)
	o.MaintNotificationsConfig = noMaintenance()
	o.CredentialsProvider = credentials(o.Username, o.Password, password)
	o.Dialer = bounded(&goredis.Options{DialTimeout: o.DialTimeout, TLSConfig: o.TLSConfig})
	return goredis.NewClient(o), nil
}

func sentinel(plain string, password func() string, timeout time.Duration) (goredis.UniversalClient, error) {
	o, err := goredis.ParseFailoverURL(plain)
	if err != nil {
		return nil, conceal(plain, err)
	}
	if o.MasterName == "" {
		return nil, fmt.Errorf("%w: master_name is missing", ErrURL)
	}
	o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = -1, 1, true
	setDefault(timeout, &o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout, &o.PoolTimeout)
	o.CredentialsProvider = credentials(o.Username, o.Password, password)
	o.Dialer = bounded(&goredis.Options{DialTimeout: o.DialTimeout, TLSConfig: o.TLSConfig})
	return goredis.NewFailoverClient(o), nil
}

func cluster(plain string, password func() string, timeout time.Duration) (goredis.UniversalClient, error) {
	o, err := goredis.ParseClusterURL(plain)
	if err != nil {
		return nil, conceal(plain, err)
	}
	// The client still follows redirects. They are not retries: a healthy cluster answers with them.
	o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = -1, 1, true
	setDefault(timeout, &o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout, &o.PoolTimeout)
	o.MaintNotificationsConfig = noMaintenance()
	o.CredentialsProvider = credentials(o.Username, o.Password, password)
	o.Dialer = bounded(&goredis.Options{DialTimeout: o.DialTimeout, TLSConfig: o.TLSConfig})
	return goredis.NewClusterClient(o), nil
}

// credentials returns a function that returns the user and password for a new connection. If
// password is nil or returns an empty string, the password in the URL is used.
func credentials(username, fromURL string, password func() string) func() (string, string) {
	return func() (string, string) {
		if password != nil {
			if p := password(); p != "" {
				return username, p
			}
		}
		return username, fromURL
	}
}

// setDefault sets each bound to timeout, unless the URL has set it.
func setDefault(timeout time.Duration, bounds ...*time.Duration) {
	for _, b := range bounds {
		*b = cmp.Or(*b, timeout)
	}
}

// noMaintenance returns the setting by which no connection subscribes to maintenance notices. Only
// the service of one vendor sends such notices.
func noMaintenance() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}
