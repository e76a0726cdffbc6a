-- Extends the leases of a member. KEYS: leases. ARGV: member, its address, milliseconds until the
-- leases expire, then the generation of each lease. Returns the indices in KEYS of the lost leases.
local lost = {}
for i, key in ipairs(KEYS) do
	local g = redis.call('HGET', key, 'g')
	if not g then
		redis.call('HSET', key, 'm', ARGV[1], 'a', ARGV[2], 'g', ARGV[3 + i])
		g = ARGV[3 + i]
	end
	if g == ARGV[3 + i] then
		redis.call('PEXPIRE', key, ARGV[3])
	else
		table.insert(lost, i)
	end
end
return lost
