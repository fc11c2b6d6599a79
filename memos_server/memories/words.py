"""The word lists of the analyzer: English function words, and capitalised words that are no names."""

from __future__ import annotations

from typing import Final

_FUNCTION_WORDS: Final = """
    a an the and or but nor if then than so as of at by for from in into on onto to with about
    i me my mine we us our ours you your yours he him his she her hers it its they them their theirs
    this that these those there here who whom whose which what when where why how
    am is are was were be been being do does did doing done have has had having
    will would shall should can could might must not no
    i'm i've i'd i'll you're you've you'd you'll he's he'd he'll she's she'd she'll it's it'd it'll we're we've we'd
    we'll they're they've they'd they'll that's there's here's what's who's where's when's how's let's
    isn't aren't wasn't weren't don't doesn't didn't haven't hasn't hadn't won't wouldn't can't cannot couldn't
    shouldn't s t d m ll re ve
"""
STOP_WORDS: Final = frozenset(_FUNCTION_WORDS.split())
"""English function words: they tell no memory from another. `may` is not among them: it is a month."""

_OPENERS: Final = """
    hey hi hello wow thanks thank yes yeah yep no nope ok okay sure well oh ah aw awesome great good nice cool amazing
    absolutely definitely exactly totally really right glad happy sorry sounds looks look see let please congrats
    congratulations also just still even maybe perhaps however therefore meanwhile moreover instead anyway besides
    after before during since until while when whenever once again now today tomorrow yesterday tonight soon later
    first second third next last finally then thus hence because although though unless whether either neither both
    all any each every some many most much more few several other another such same new old only my your our
    here there everything something nothing anything everyone someone nobody one two three it take keep make go get
    got give try use run set add see note remember feel think know love like enjoy hope wish
    haha yay yup nah aww ooh ooo oof phew woah whoa mmm hmm uh um gonna gotta wanna kinda btw ttyl lol omg bye cheers
    plus super long little way always never sometimes often together lots tons things time guess bet tell talk stay
    check want need makes means feels reminds sound sounds start appreciate celebrate proud lucky funny anytime how're
    how've how'd that'd
"""
NOT_NAMES: Final = STOP_WORDS | frozenset(_OPENERS.split())
"""Words that open a sentence with a capital and name nobody."""

_DATE_NAMES: Final = """
    january february march april may june july august september october november december
    jan feb mar apr jun jul aug sep sept oct nov dec
    monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thur thurs fri sat sun am pm
"""
DATE_WORDS: Final = frozenset(_DATE_NAMES.split())
"""Months, days and times of day: written with capitals, but no names."""
