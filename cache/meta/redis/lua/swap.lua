-- Writes keys if other keys have not changed. KEYS: the keys to write, then the keys to compare.
-- ARGV: the number of keys to write; for each of them its value and its milliseconds to live (0: no
-- expiry, below 0: delete the key); for each key to compare "=" and its earlier value, or an empty
-- text if it was missing. Returns 0 if a key has changed.
local n = tonumber(ARGV[1])
for i = n + 1, #KEYS do
	local v = redis.call('GET', KEYS[i])
	if (v and '=' .. v or '') ~= ARGV[1 + n + i] then return 0 end
end
for i = 1, n do
	local ttl = tonumber(ARGV[2 * i + 1])
	if ttl > 0 then
		redis.call('SET', KEYS[i], ARGV[2 * i], 'PX', ttl)
	elseif ttl == 0 then
		redis.call('SET', KEYS[i], ARGV[2 * i])
	else
		redis.call('DEL', KEYS[i])
	end
end
return 1
