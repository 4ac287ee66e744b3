"""Golden order of simplemix-mix's Permutation, from its description rather than its code. Python 3.11, no packages."""
M = (1 << 64) - 1


def mix(z):
    z = (z + 0x9E3779B97F4A7C15) & M
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
    return z ^ (z >> 31)


def permutation(length, seed, epoch):
    bits = max((length - 1).bit_length(), 2)
    low, high = bits // 2, bits - bits // 2
    base = mix(mix(seed) ^ epoch)
    keys = [mix(base ^ r) for r in range(6)]

    def encrypt(value):
        a, b = value & ((1 << low) - 1), value >> low
        for r in range(0, 6, 2):
            b ^= mix(keys[r] ^ a) & ((1 << high) - 1)
            a ^= mix(keys[r + 1] ^ b) & ((1 << low) - 1)
        return (b << low) | a

    for i in range(length):
        value = encrypt(i)
        while value >= length:
            value = encrypt(value)
        yield value


print(list(permutation(10, 42, 0)))
print(list(permutation(33, 7, 3))[:12])
