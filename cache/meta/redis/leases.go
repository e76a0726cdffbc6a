package redis

import (
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	goredis "github.com/redis/go-redis/v9"

	"dray/cache/fleet"
)

// Leases are the leases of a fleet in Redis. Each lease is a hash that expires, with the fields m
// (member), a (address) and g (generation). All keys have one hash tag, so a cluster stores them in
// one slot, and one script may use many of them.
type Leases struct {
	client goredis.UniversalClient
	prefix string
}

var _ fleet.Leases = (*Leases)(nil)

// Leases returns the leases in the Redis of the store. They cannot be used after [Store.Close].
func (s *Store) Leases() *Leases { return &Leases{s.client, s.prefix + "{fleet}:"} }

func (s *Leases) lease(d digest.Digest) string { return s.prefix + "lease:" + string(d) }

// members returns the key of a hash. For each member, the hash has a description, and the time
// until which the member counts as alive (by the clock of Redis).
func (s *Leases) members() string { return s.prefix + "members" }

//go:embed lua/*.lua
var lua embed.FS

// The scripts. Each file says what its keys and arguments are.
var (
	takeScript    = script("take")
	renewScript   = script("renew")
	aliveScript   = script("alive")
	membersScript = script("members")
	releaseScript = script("release")
)

func script(name string) *goredis.Script {
	text, err := lua.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err) // the file is part of the program
	}
	return goredis.NewScript(string(text))
}

// Take implements [fleet.Leases].
func (s *Leases) Take(ctx context.Context, d digest.Digest, m fleet.Member, failed int64) (fleet.Lease, error) {
	if err := ctx.Err(); err != nil {
		return fleet.Lease{}, err
	}
	l, err := takeScript.Run(ctx, s.client, []string{s.lease(d)}, m.ID, m.Address, failed, fleet.LeaseTTL.Milliseconds()).StringSlice()
	if err != nil {
		return fleet.Lease{}, translate(err)
	}
	if len(l) != 3 {
		return fleet.Lease{}, fmt.Errorf("lease of %s: redis has %d fields instead of 3", d, len(l))
	}
	generation, err := strconv.ParseInt(l[2], 10, 64)
	if err != nil || generation <= 0 {
		return fleet.Lease{}, fmt.Errorf("lease of %s: redis has no generation", d)
	}
	return fleet.Lease{Digest: d, Holder: l[0], Address: l[1], Generation: generation}, nil
}

// Renew implements [fleet.Leases]. It sends one command, and one more for each page of up to
// pageEntries leases.
func (s *Leases) Renew(ctx context.Context, m fleet.Member, held []fleet.Lease) (lost []digest.Digest, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if err := aliveScript.Run(ctx, s.client, []string{s.members()}, m.ID, text, fleet.LeaseTTL.Milliseconds()).Err(); err != nil {
		return nil, translate(err)
	}
	return s.extend(ctx, m, held)
}

// extend does what Renew does, but does not record that the member is alive.
func (s *Leases) extend(ctx context.Context, m fleet.Member, held []fleet.Lease) (lost []digest.Digest, err error) {
	ttl := fleet.LeaseTTL.Milliseconds()
	for page := range slices.Chunk(held, pageEntries) {
		keys, args := s.page(page, m.ID, m.Address, ttl)
		gone, err := renewScript.Run(ctx, s.client, keys, args...).Int64Slice()
		if err != nil {
			return lost, translate(err)
		}
		for _, i := range gone {
			if i >= 1 && i <= int64(len(page)) {
				lost = append(lost, page[i-1].Digest)
			}
		}
	}
	return lost, nil
}

// page returns the keys of leases, and args followed by the generations of the leases.
func (s *Leases) page(leases []fleet.Lease, args ...any) (keys []string, all []any) {
	all = args
	for _, l := range leases {
		keys, all = append(keys, s.lease(l.Digest)), append(all, l.Generation)
	}
	return keys, all
}

// Release implements [fleet.Leases].
func (s *Leases) Release(ctx context.Context, held []fleet.Lease) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for page := range slices.Chunk(held, pageEntries) {
		keys, args := s.page(page)
		if err := releaseScript.Run(ctx, s.client, keys, args...).Err(); err != nil {
			return translate(err)
		}
	}
	return nil
}

// Leave implements [fleet.Leases].
func (s *Leases) Leave(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return translate(s.client.HDel(ctx, s.members(), id).Err())
}

// Members implements [fleet.Leases]. It leaves out members that it cannot decode.
func (s *Leases) Members(ctx context.Context) (all []fleet.Member, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	texts, err := membersScript.Run(ctx, s.client, []string{s.members()}).StringSlice()
	if err != nil {
		return nil, translate(err)
	}
	for _, text := range texts {
		var m fleet.Member
		if json.Unmarshal([]byte(text), &m) == nil && m.ID != "" {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b fleet.Member) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}
