package upstream

// Taken is how many places are taken.
func Taken(l *Limiter) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.pools {
		n += p.taken
	}
	return n
}
