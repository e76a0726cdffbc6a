-- KEYS: rates. Each is a hash from participants to their demand,
-- their share, and the time in ms when the share expires. Later versions may append more.
-- ARGV: milliseconds until a share expires, then for each rate: participant, total, demand. Returns
-- the share of each rate as text.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local shares = {}
for i, key in ipairs(KEYS) do
	local me, total, want = ARGV[3 * i - 1], tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
	local wants, free, share = {want}, total, 0
	local all = redis.call('HGETALL', key)
	for j = 1, #all, 2 do
		local w, s, u = string.match(all[j + 1], '^(%d+%.?%d*) (%d+%.?%d*) (%d+)')
		if not u or tonumber(u) < now then
			redis.call('HDEL', key, all[j])
		elseif all[j] ~= me then
			table.insert(wants, tonumber(w))
			free = free - tonumber(s)
		end
	end
	if want > 0 then
		table.sort(wants)
		local left, most = total, want
		for j, w in ipairs(wants) do
			local equal = left / (#wants - j + 1)
			if w > equal then
				most = equal
				break
			end
			left = left - w
		end
		share = math.max(0, math.min(want, most, free))
		redis.call('HSET', key, me, string.format('%.6f %.6f %.0f', want, share, now + ARGV[1]))
		redis.call('PEXPIRE', key, ARGV[1])
	else
		redis.call('HDEL', key, me)
	end
	shares[i] = string.format('%.6f', share)
end
return shares
