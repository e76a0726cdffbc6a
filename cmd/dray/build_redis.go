package main

import (
	"errors"
	"net/url"
	"strings"

	"dray/cache/meta/redis"
	"dray/cmd/dray/config"
)

// openRedis does not connect yet. If Redis cannot be reached, dray starts without it, and /readyz
// reports that.
func openRedis(m config.Metadata) (*redis.Store, error) {
	raw, err := withPassword(m.URL.Reveal(), m.Password.Reveal())
	if err != nil {
		return nil, err
	}
	return redis.Open(redis.Options{URL: raw, Prefix: m.KeyPrefix})
}

// withPassword adds the password to the URL: for Redis Sentinel as a parameter, otherwise in the
// user part. Its errors do not show the URL, which may contain another password.
func withPassword(raw, password string) (string, error) {
	if password == "" {
		return raw, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", errors.New("malformed URL")
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
