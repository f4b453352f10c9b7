"""DiffRate's published lists (arXiv:2305.17997), as its search left them."""

from tokensearch.policy.steps import Pool, Prune, Step

# Name: size and GFLOPs of the budget. Then, block by block, the tokens left by the prune and by the
# pool after it, class token counted in. DeiT-S, DeiT-B and DeiT-T; ViT-B and ViT-L of MAE.
_LISTS = """
s-2.3
197 192 168 143 121 105 92 74 62 45 33 3
197 180 156 127 109 98 80 66 52 37 31 3
s-2.5
197 192 174 156 131 115 111 99 76 50 39 3
197 186 160 133 119 107 96 82 66 43 37 3
s-2.7
197 196 182 160 141 127 115 105 88 66 49 3
197 188 170 147 131 119 109 96 76 54 45 3
s-2.9
197 196 190 168 150 139 129 117 99 78 58 3
197 194 176 156 141 133 121 107 88 64 56 3
s-3.1
197 197 194 180 160 147 137 129 115 92 76 3
197 196 186 164 150 141 133 121 103 78 68 3
b-8.7
197 192 172 156 131 107 90 72 56 33 17 3
197 178 162 141 115 96 78 60 47 21 13 3
b-10.0
197 194 182 168 148 129 113 101 82 49 25 3
197 186 174 156 137 117 105 90 66 31 19 3
b-10.4
197 196 188 174 156 141 121 103 90 58 25 3
197 190 184 164 145 131 107 94 74 31 21 3
b-11.5
197 197 197 188 170 154 139 123 107 72 43 3
197 197 192 178 158 145 127 111 94 50 35 3
b-12.5
197 197 196 192 184 170 154 139 129 94 58 3
197 196 194 190 176 160 145 131 115 68 47 3
t-0.6
197 196 180 157 130 107 86 73 63 51 40 3
197 187 167 139 114 90 76 66 57 45 37 3
t-0.7
197 196 194 180 150 123 98 82 68 60 52 3
197 196 192 158 133 103 88 72 64 58 49 3
t-0.8
197 197 196 186 166 147 117 103 92 80 74 3
197 196 190 172 154 125 107 96 84 78 70 3
t-0.9
197 197 196 190 182 166 141 125 113 105 99 3
197 196 194 188 172 147 129 115 107 103 96 3
t-1.0
197 197 196 194 188 184 178 164 156 137 129 21
197 197 196 190 186 154 148 156 145 135 125 21
mae-b-11.5
197 196 182 172 162 147 131 109 101 94 70 49
197 192 178 164 150 133 115 101 96 82 49 49
mae-b-10.4
197 195 179 159 140 122 105 100 89 71 56 45
197 187 166 145 125 109 102 97 75 64 45 45
mae-b-10.0
197 194 173 154 135 120 108 92 76 64 52 40
197 181 160 141 122 116 95 80 67 60 40 40
mae-b-8.7
197 192 166 143 119 103 86 72 54 43 37 23
197 176 150 127 107 92 76 58 47 41 23 23
mae-l-31.0
197 195 188 179 168 157 146 143 131 121 111 102 93 85 76 70 61 53 47 35 31 26 21 14
197 191 184 172 161 151 145 135 125 117 106 96 89 80 72 64 54 50 40 27 27 23 14 14
mae-l-34.7
197 195 192 189 181 170 161 160 149 140 128 118 109 95 91 82 73 68 58 54 43 38 29 18
197 193 190 185 173 164 159 154 142 137 121 111 103 97 82 76 67 61 58 48 35 32 18 18
mae-l-38.5
197 197 195 190 187 183 179 171 164 159 151 143 137 114 106 89 88 85 76 57 47 53 32 24
197 196 193 189 183 180 175 167 161 158 152 134 120 110 97 91 87 83 65 47 54 34 24 24
mae-l-42.3
197 197 197 195 194 193 191 187 182 180 173 149 142 134 125 121 111 106 91 87 77 39 38 32
197 197 196 194 193 192 187 183 181 173 154 146 137 127 123 114 105 98 87 75 43 45 32 32
mae-l-46.1
197 197 197 196 194 192 191 188 185 181 170 157 154 146 143 139 128 125 111 100 92 83 69 60
197 197 196 195 193 191 189 187 183 176 162 155 148 145 139 133 127 118 104 95 86 71 60 60
"""


def diffrate_lists() -> dict[str, tuple[Step, ...]]:
    """Return the steps of every list, by its name."""
    lines = _LISTS.strip().splitlines()
    return {
        name: _steps(_patches(pruned), _patches(pooled))
        for name, pruned, pooled in zip(lines[::3], lines[1::3], lines[2::3], strict=True)
    }


def _patches(line: str) -> list[int]:
    """Patch tokens left, block by block, without the class token."""
    return [int(count) - 1 for count in line.split()]


def _steps(pruned: list[int], pooled: list[int]) -> tuple[Step, ...]:
    """Prune, then pool, in every block that leaves fewer tokens than the one before.

    Some entries are higher than one before them. The code then removes nothing, so what holds is
    the least count so far.
    """
    left, steps = pruned[0], list[Step]()  # every list leaves block 0 whole
    for block, (after_prune, after_pool) in enumerate(zip(pruned, pooled, strict=True)):
        if after_prune < left:
            left = after_prune
            steps.append(Prune(block, left))
        if after_pool < left:
            left = after_pool
            steps.append(Pool(block, left, "ranked"))
    return tuple(steps)
