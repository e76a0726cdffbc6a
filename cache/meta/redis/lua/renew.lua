-- KEYS are leases; ARGV: member, address, milliseconds, then the generation of each lease.
-- Returns the numbers, from 1, of the leases that are lost.
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
