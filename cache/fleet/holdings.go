package fleet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dray/cache"
)

// maxParts bounds the parts of a blob that an answer lists.
const maxParts = 64

// holding has the parts of a blob that another member holds.
type holding struct {
	address string
	near    bool // the member is in the zone of this member
	size    int64
	parts   []cache.Extent
}

func (h holding) whole() bool {
	return h.size > 0 && len(h.parts) == 1 && h.parts[0] == cache.Extent{From: 0, To: h.size}
}

// [holding.end] returns the end of the part that has the byte at offset, or 0 if no part has it.
func (h holding) end(offset int64) int64 {
	for _, p := range h.parts {
		if p.From <= offset && offset < p.To {
			return p.To
		}
	}
	return 0
}

// survey asks all members at the same time which parts of a blob they hold. It waits until all have
// answered, or a member of this zone has reported the whole blob, but not longer than timeout. The
// result has the members of this zone first.
func (p *peers) survey(ctx context.Context, q request, members []Member, timeout time.Duration) (holdings []holding) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var mu sync.Mutex // guards holdings
	var asking sync.WaitGroup
	for _, m := range members {
		asking.Go(func() {
			q := q
			q.address = m.Address
			h, err := p.holds(ctx, q)
			if err != nil || len(h.parts) == 0 {
				return
			}
			if h.near = m.Zone == p.zone(); h.near && h.whole() {
				cancel()
			}
			mu.Lock()
			defer mu.Unlock()
			holdings = append(holdings, h)
		})
	}
	asking.Wait()
	slices.SortStableFunc(holdings, func(a, b holding) int {
		switch {
		case a.near == b.near:
			return 0
		case a.near:
			return -1
		}
		return 1
	})
	return holdings
}

// holds asks a member which parts of a blob it holds.
func (p *peers) holds(ctx context.Context, q request) (holding, error) {
	p.m.questions.Inc()
	h := holding{address: q.address}
	resp, err := p.send(ctx, http.MethodHead, q, 0)
	if err != nil {
		return h, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode != http.StatusOK || !p.understands(resp.Header):
		return h, fmt.Errorf("the member answered %s", resp.Status)
	case p.isBanned(resp.Header.Get(headerMember)):
		return h, errBanned
	}
	h.parts, err = parseParts(resp.Header.Get(headerParts))
	size, sizeErr := strconv.ParseInt(resp.Header.Get(headerSize), 10, 64)
	h.size = size
	return h, errors.Join(err, sizeErr)
}

// formatParts returns the value of a header that lists the first maxParts parts.
func formatParts(all []cache.Extent) string {
	var text []string
	for _, p := range all[:min(len(all), maxParts)] {
		text = append(text, fmt.Sprintf("%d-%d", p.From, p.To))
	}
	return strings.Join(text, ",")
}

// parseParts returns the parts that such a header lists.
func parseParts(text string) (all []cache.Extent, err error) {
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		first, last, _ := strings.Cut(part, "-")
		from, err1 := strconv.ParseInt(first, 10, 64)
		to, err2 := strconv.ParseInt(last, 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		if from < 0 || from >= to || len(all) >= maxParts {
			return nil, fmt.Errorf("the member holds the parts %s, which cannot be right", text)
		}
		all = append(all, cache.Extent{From: from, To: to})
	}
	return all, nil
}

// fromHoldings opens the blob at a member that holds the byte at w.From. The stream does not go
// beyond the end of that member's part. If no such member sends the byte, fromHoldings returns
// false. It needs mu.
func (s *Share) fromHoldings(ctx context.Context, w Want) (cache.Stream, bool) {
	for i := 0; i < len(s.holdings) && ctx.Err() == nil; {
		h := s.holdings[i]
		to := h.end(w.From)
		if to == 0 {
			i++
			continue
		}
		if w.To > 0 && !w.On {
			to = min(to, w.To)
		}
		q := s.request(s.lease, h.address, Want{From: w.From, To: to, Most: w.Most})
		q.held = true
		stream, err := s.f.open(ctx, q)
		if err != nil {
			s.f.log.Debug("fleet: another member does not send bytes that it held", "digest", s.digest, "address", h.address, "error", err)
			s.holdings = slices.Delete(s.holdings, i, i+1)
			continue
		}
		stream.share = s
		answer := cache.Stream{Body: stream, Size: stream.size, Follows: w.On || w.To == 0}
		if to != stream.size {
			answer.End = to
		}
		return answer, true
	}
	return cache.Stream{}, false
}

// gap is called when no member holds the byte at w.From. It returns the next offset at which a
// member holds bytes, or w.To if that comes first. 0 means the end of the blob. It needs mu.
func (s *Share) gap(w Want) (until int64) {
	until = w.To
	for _, h := range s.holdings {
		for _, p := range h.parts {
			if p.From > w.From && (until == 0 || p.From < until) {
				until = p.From
			}
		}
	}
	return until
}
