package cache

import (
	"cmp"
	"slices"
)

// pieces are the parts of a blob that nobody fetches yet, sorted by offset. No two overlap.
type pieces []span

// piecesOf divides the bytes between two offsets into pieces of the given length. The last one may
// be shorter.
func piecesOf(from, to, length int64) (all pieces) {
	for at := from; at < to; at += length {
		all = append(all, span{at, min(at+length, to)})
	}
	return all
}

// find returns the index in f of the piece that has the byte at off, or -1.
func (f pieces) find(off int64) int {
	i, found := slices.BinarySearchFunc(f, off, func(p span, off int64) int { return cmp.Compare(p.from, off) })
	if !found {
		i--
	}
	if i < 0 || off >= f[i].to {
		return -1
	}
	return i
}

// firstIn returns the index of the first of the given spans that begins in a piece, or -1.
func (f pieces) firstIn(spans []span) int {
	return slices.IndexFunc(spans, func(d span) bool { return f.find(d.from) >= 0 })
}

// [pieces.without] removes p, which is a part of piece i, from the pieces.
func (f pieces) without(i int, p span) pieces {
	var rest pieces
	if from := f[i].from; from < p.from {
		rest = append(rest, span{from, p.from})
	}
	if to := f[i].to; p.to < to {
		rest = append(rest, span{p.to, to})
	}
	return slices.Replace(f, i, i+1, rest...)
}

// [pieces.with] adds p to the pieces, unless p is empty.
func (f pieces) with(p span) pieces {
	if p.from >= p.to {
		return f
	}
	i, _ := slices.BinarySearchFunc(f, p, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	return slices.Insert(f, i, p)
}
