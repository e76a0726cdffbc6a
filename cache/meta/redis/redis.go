package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"dray/cache/meta"
)

// Options configure [Open].
type Options struct {
	// URL says where Redis is and how to log in:
	//
	//	redis://user:password@host:6379/0              one server; rediss for TLS
	//	unix://user:password@/run/redis.sock?db=0      one server
	//	redis+sentinel://host:26379/0?master_name=m&addr=host2:26379
	//	redis+cluster://user:password@host:6379?addr=host2:6379
	//
	// The schemes rediss+sentinel and rediss+cluster use TLS. The query takes the options of go-redis
	// in snake case, such as pool_size or skip_verify. With Sentinel, the user and the password before
	// the host are for the Sentinel. The options username and password of the query are for the
	// server.
	URL string
	// Password returns the password for a new connection to the server, in place of the password in
	// URL. If it is nil or returns "", the password in URL is used.
	Password func() string
	// Prefix is the beginning of every key; empty means "dray:".
	Prefix string
	// Timeout bounds each of four operations: connecting, one write, one read, and the wait for a free
	// connection. 0 means 500 ms. The URL can set another bound for each.
	Timeout time.Duration
}

// Store is a [meta.Store] in Redis.
type Store struct {
	client goredis.UniversalClient
	prefix string

	closeOnce sync.Once
	closeErr  error
}

var (
	_ meta.Store   = (*Store)(nil)
	_ meta.Batch   = (*Store)(nil)
	_ meta.Swapper = (*Store)(nil)
	_ meta.Clocked = (*Store)(nil)
)

// Open returns a store at a URL. It does not connect: a Redis that is down must not keep the
// service from starting.
func Open(o Options) (*Store, error) {
	client, err := connect(o.URL, o.Password, cmp.Or(o.Timeout, 500*time.Millisecond))
	if err != nil {
		return nil, fmt.Errorf("open metadata in redis: %w", err)
	}
	return &Store{client: client, prefix: cmp.Or(o.Prefix, "dray:")}, nil
}

// translate maps the errors of the client to the errors of a store.
func translate(err error) error {
	switch {
	case errors.Is(err, goredis.Nil):
		return meta.ErrNotFound
	case errors.Is(err, goredis.ErrClosed):
		return meta.ErrClosed
	}
	return err
}

// expiry rounds up to milliseconds, the unit of Redis. If it rounded down, a short ttl would become
// 0, and a ttl of 0 means that the entry never expires.
func expiry(ttl time.Duration) time.Duration {
	return (ttl + time.Millisecond - 1).Truncate(time.Millisecond)
}

// Get implements [meta.Store].
func (s *Store) Get(ctx context.Context, key string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	value, err := s.client.Get(ctx, s.prefix+key).Bytes()
	return value, translate(err)
}

// GetAll implements [meta.Batch] by one command. In a cluster, it uses one command for each key,
// because a cluster refuses MGET across slots.
func (s *Store) GetAll(ctx context.Context, keys []string) ([]meta.Seen, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	full := make([]string, len(keys))
	for i, k := range keys {
		full[i] = s.prefix + k
	}
	all := make([]meta.Seen, len(keys))
	if _, cluster := s.client.(*goredis.ClusterClient); cluster {
		answers, err := s.pipelined(ctx, full)
		if err != nil {
			return nil, translate(err)
		}
		for i, a := range answers {
			value, err := a.Bytes()
			if err != nil && !errors.Is(err, goredis.Nil) {
				return nil, translate(err)
			}
			all[i] = meta.Seen{Entry: meta.Entry{Key: keys[i], Value: value}, Found: err == nil}
		}
		return all, nil
	}
	values, err := s.client.MGet(ctx, full...).Result()
	if err != nil {
		return nil, translate(err)
	}
	for i := range keys {
		value, found := values[i].(string)
		all[i] = meta.Seen{Entry: meta.Entry{Key: keys[i], Value: []byte(value)}, Found: found}
	}
	return all, nil
}

var swapScript = script("swap")

// Swap implements [meta.Swapper] by one script. In a cluster the keys may be at several servers, so
// Swap then compares and puts in several steps.
func (s *Store) Swap(ctx context.Context, writes []meta.Write, snapshot []meta.Seen) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if _, cluster := s.client.(*goredis.ClusterClient); cluster {
		return meta.SwapInSteps(ctx, s, writes, snapshot)
	}
	keys, args := []string{}, []any{len(writes)}
	for _, w := range writes {
		ttl := int64(-1)
		if w.TTL >= 0 {
			ttl = expiry(w.TTL).Milliseconds()
		}
		keys, args = append(keys, s.prefix+w.Key), append(args, w.Value, ttl)
	}
	for _, was := range snapshot {
		value := []byte{}
		if was.Found {
			value = append([]byte("="), was.Value...)
		}
		keys, args = append(keys, s.prefix+was.Key), append(args, value)
	}
	done, err := swapScript.Run(ctx, s.client, keys, args...).Int()
	return done == 1, translate(err)
}

// Clock implements [meta.Clocked] by the command TIME. The servers of a cluster must agree about
// the time.
func (s *Store) Clock(ctx context.Context) (store, local time.Time, err error) {
	if err := ctx.Err(); err != nil {
		return store, local, err
	}
	began := time.Now()
	store, err = s.client.Time(ctx).Result()
	return store, began.Add(time.Since(began) / 2), translate(err)
}

// Put implements [meta.Store].
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ttl < 0 {
		return s.Delete(ctx, key)
	}
	return translate(s.client.Set(ctx, s.prefix+key, value, expiry(ttl)).Err())
}

// pageEntries bounds the commands in one pipeline of PutAll, and the leases in one script. It is
// also the approximate number of keys that one SCAN looks at. It is large enough to save round
// trips, and small enough not to keep other clients of the server waiting.
const pageEntries = 256

// PutAll implements [meta.Batch] with pipelines.
func (s *Store) PutAll(ctx context.Context, entries []meta.Entry, ttl time.Duration) error {
	for len(entries) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		page := entries[:min(pageEntries, len(entries))]
		entries = entries[len(page):]
		_, err := s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for _, e := range page {
				if ttl < 0 {
					p.Del(ctx, s.prefix+e.Key)
				} else {
					p.Set(ctx, s.prefix+e.Key, e.Value, expiry(ttl))
				}
			}
			return nil
		})
		if err != nil {
			return translate(err)
		}
	}
	return nil
}

// Delete implements [meta.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return translate(s.client.Del(ctx, s.prefix+key).Err())
}

// Scan implements [meta.Store]. Redis has no index of its keys by prefix. So Scan looks at all keys
// of every master, including keys of other programs.
func (s *Store) Scan(ctx context.Context, prefix string) iter.Seq2[meta.Entry, error] {
	return func(yield func(meta.Entry, error) bool) {
		nodes, err := s.masters(ctx)
		if err != nil {
			yield(meta.Entry{}, translate(err))
			return
		}
		for _, node := range nodes {
			if !s.scanNode(ctx, node, prefix, yield) {
				return
			}
		}
	}
}

// masters returns clients that together see every key.
func (s *Store) masters(ctx context.Context) ([]goredis.Cmdable, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cluster, ok := s.client.(*goredis.ClusterClient)
	if !ok {
		return []goredis.Cmdable{s.client}, nil
	}
	var mu sync.Mutex
	var nodes []goredis.Cmdable
	err := cluster.ForEachMaster(ctx, func(_ context.Context, node *goredis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, node)
		return nil
	})
	return nodes, err
}

// scanNode scans one server. It reports whether the scan continues.
func (s *Store) scanNode(ctx context.Context, node goredis.Cmdable, prefix string, yield func(meta.Entry, error) bool) bool {
	pattern := escapePattern(s.prefix+prefix) + "*"
	for cursor := uint64(0); ; {
		keys, next, err := node.Scan(ctx, cursor, pattern, pageEntries).Result()
		if err != nil {
			yield(meta.Entry{}, translate(err))
			return false
		}
		page, err := s.values(ctx, keys)
		if err != nil {
			yield(meta.Entry{}, translate(err))
			return false
		}
		for _, e := range page {
			if err := ctx.Err(); err != nil {
				yield(meta.Entry{}, err)
				return false
			}
			if !yield(e, nil) {
				return false
			}
		}
		if cursor = next; cursor == 0 {
			return true
		}
	}
}

// values returns the entries of a page of keys, without keys that are gone. It uses one GET for
// each key, because a cluster refuses MGET across slots.
func (s *Store) values(ctx context.Context, keys []string) ([]meta.Entry, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	answers, err := s.pipelined(ctx, keys)
	if err != nil {
		return nil, err
	}
	page := make([]meta.Entry, 0, len(keys))
	for i, a := range answers {
		value, err := a.Bytes()
		if errors.Is(err, goredis.Nil) {
			continue
		}
		if err != nil {
			return nil, err
		}
		page = append(page, meta.Entry{Key: strings.TrimPrefix(keys[i], s.prefix), Value: value})
	}
	return page, nil
}

// pipelined sends a GET for each key.
func (s *Store) pipelined(ctx context.Context, keys []string) ([]*goredis.StringCmd, error) {
	answers := make([]*goredis.StringCmd, len(keys))
	_, err := s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i, k := range keys {
			answers[i] = p.Get(ctx, k)
		}
		return nil
	})
	if errors.Is(err, goredis.Nil) {
		err = nil
	}
	return answers, err
}

// escapePattern returns a glob pattern that matches only s.
func escapePattern(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(s)
}

// Close implements [meta.Store].
func (s *Store) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.client.Close() })
	return s.closeErr
}

// Server returns the version of Redis and its policy of eviction. Either is empty if Redis does not
// report it to this user.
func (s *Store) Server(ctx context.Context) (version, policy string, err error) {
	info, err := s.client.Info(ctx, "server", "memory").Result()
	if err != nil {
		return "", "", translate(err)
	}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "redis_version":
			version = value
		case "maxmemory_policy":
			policy = value
		}
	}
	return version, policy, nil
}
