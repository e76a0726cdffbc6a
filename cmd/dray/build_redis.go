package main

import (
	"errors"
	"net/url"
	"strings"

	"dray/cache/meta/redis"
	"dray/cmd/dray/config"
)

// openRedis connects lazily: a Redis that is not there yet is a state of health,
// not a reason not to start.
func openRedis(m config.Metadata) (*redis.Store, error) {
	raw, err := withPassword(m.URL.Reveal(), m.Password.Reveal())
	if err != nil {
		return nil, err
	}
	return redis.Open(redis.Options{URL: raw, Prefix: m.KeyPrefix})
}

// withPassword puts the password where the form of the URL has it. An error does
// not show the URL, which may hold another one.
func withPassword(raw, password string) (string, error) {
	if password == "" {
		return raw, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", errors.New("the URL cannot be read")
	}
	if strings.HasSuffix(u.Scheme, "+sentinel") {
		q := u.Query()
		q.Set("password", password)
		u.RawQuery = q.Encode()
	} else {
		u.User = url.UserPassword(u.User.Username(), password)
	}
	return u.String(), nil
}
