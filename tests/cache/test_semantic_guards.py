"""What changes the answer is never overlooked, and a paraphrase seldom taken for it.

The words here were chosen without a look at the guards' lists. docs/semantic-cache.md has the figures for sets of 500
edits of each kind, made of public questions.
"""

import itertools

import pytest

from services.cache.semantic.guards import align, misspelt, objection
from services.cache.semantic.words import parse

NEGATED = """
Can I travel to Norway with a dog? | Can't I travel to Norway with a dog?
Why is my sourdough rising? | Why is my sourdough not rising?
Should I take this pill before breakfast? | Should I never take this pill before breakfast?
Which vegetables are good for rabbits? | Which vegetables aren't good for rabbits?
How do I get the engine to start? | How do I prevent the engine from starting?
Is it legal to record a phone call in Texas? | Is it illegal to record a phone call in Texas?
How can I log in with a password? | How can I log in without a password?
Which ships have crossed the strait? | Which ships have yet to cross the strait?
How do I let my dog roam? | How do I forbid my dog to roam?
Can I open the vault? | Am I unable to open the vault?
Can I use a lamp to dry the paint? | Can I dry the paint if I do not use a lamp?
Is the lactose free cheese ripe? | Is the cheese ripe?
Who is allowed to vote in the election? | Who is no longer allowed to vote in the election?
"""
NUMBERED = """
What is 15 percent of 80? | What is 25 percent of 80?
Is 200 mg of caffeine safe? | Is 200 g of caffeine safe?
How far is five miles on foot? | How far is five kilometers on foot?
What happened in 1914? | What happened in 1941?
Can I return shoes after two weeks? | Can I return shoes after ten weeks?
What does a $50 gift card cost? | What does a €50 gift card cost?
How do I upgrade from version 2.1 to 3.0? | How do I upgrade from version 2.1 to 4.0?
Is 38.5 a fever? | Is 39.5 a fever?
Book a table at 18:30 | Book a table at 19:30
How many tablespoons are in 3 cups? | How many tablespoons are in 3 pints?
Who fought in World War I? | Who fought in World War II?
first step | second step
is the pool open in march | is the pool open in may
Can I visit Kyoto in May 2027? | Can I visit Kyoto in June 2027?
fees per day | fees per week
May I carry 1000 shares? | May I carry 100 shares?
What's new in Python 3.10? | What's new in Python 3.1?
Where is parcel 1234567890123? | Where is parcel 1234567890124?
Is 1,5 kg of flour enough? | Is 15 kg of flour enough?
Is 1.000 euros a lot? | Is 1 euro a lot?
Who read pages 2,3? | Who read pages 23?
We have one parrot and a balcony | We have several parrots and a balcony
Is $2500 a month enough? | Is $25000 a month enough?
"""
CALCULATED = """
What is 7 * 9 | What is 7 - 9
What is 6 / 3 | What is 6 * 3
What is 8 - 5 | What is 8 5
does it freeze at -5 degrees | does it freeze at 5 degrees
will pipes burst at minus 5 degrees | will pipes burst at 5 degrees
solve x^2 + 1 | solve x2 + 1
what does 👍 mean | what does 👎 mean
"""
OPPOSITE = """
How do I increase my blood pressure? | How do I decrease my blood pressure?
What is the cheapest phone this year? | What is the dearest phone this year?
How do I enable dark mode? | How do I disable dark mode?
Can I eat before a blood test? | Can I eat after a blood test?
Which plants need more light? | Which plants need less light?
Where do I sell old books? | Where do I buy old books?
Is the museum open on Monday? | Is the museum closed on Monday?
How do I turn on the alarm? | How do I turn off the alarm?
Why is my child so happy? | Why is my child so unhappy?
sign in | sign out
include tips | exclude tips
What does the employer pay? | What does the employee pay?
somebody rang | nobody rang
Is the fare non-refundable? | Is the fare refundable?
What do I like about it? | What do I need about it?
Which pin fits the lock? | Which pine fits the lock?
Is my suite ready? | Is my suit ready?
Are the two suites pressed? | Are the two suits pressed?
Show me the news | Show me the new
Can I get my parcel through here? | Can I get my parcel through there?
thank you | goodbye
Meet me at a quarter past six | Meet me at a quarter to six
"""
SWAPPED_ENTITY = """
Who is the mayor of Chicago? | Who is the mayor of Houston?
How do I sort a list in Python? | How do I sort a list in Haskell?
Does Lufthansa allow cats in the cabin? | Does Ryanair allow cats in the cabin?
Is Zoloft safe in pregnancy? | Is Lexapro safe in pregnancy?
What did Kant write about duty? | What did Hume write about duty?
How do I reset my iPhone? | How do I reset my Galaxy?
Can I park in Lower Manhattan on Sunday? | Can I park in Staten Island on Sunday?
How do I learn C++ quickly? | How do I learn C# quickly?
foods with vitamin A | foods with vitamin B
courses in IT | courses in HR
What is IT? | What is it?
Did Omar feed his goat? | Did Lena feed her goat?
Niger population | Nigeria population
hotels Rome | hotels Oslo
Who directed Fire and Ice? | Who directed Dust and Gold?
"""
EXCHANGED = """
Can I call you? | Can you call me?
Should I wait for her to write me? | Should she wait for me to write her?
Do I brush before I floss? | Do I floss before I brush?
10 km to miles | 10 miles to km
flights London New York on Sunday | flights New York London on Sunday
When does the nurse wake the patients? | When do the patients wake the nurse?
Can I evict my landlord? | Can my landlord evict me?
Can I lend to my brother? | Can my brother lend to me?
Am I allowed to text my boss? | Is my boss allowed to text me?
Can my wife add me to her plan? | Can I add my wife to my plan?
Foxes or owls: who starves if foxes hunt? | Owls or foxes: who starves if owls hunt?
Should I knead the dough before supper? | Should I have supper before kneading the dough?
trains from march to may | trains from may to march
Is A bigger than B? | Is B bigger than A?
Copy column C into column D | Copy column D into column C
They want to lend the museum a painting | The museum wants to lend them a painting
"""
ASKED_OTHERWISE = """
Who did the Romans defeat? | Who defeated the Romans?
What do owls hunt? | What hunts owls?
Who did Seneca teach? | Who taught Seneca?
Why does bread rise? | How does bread rise?
Where was the treaty signed? | When was the treaty signed?
Who is the captain of the team? | Who was the captain of the team?
Did it snow in Oslo? | Will it snow in Oslo?
Can I shower during the treatment? | Can I shower after the treatment?
"""
ADDED = """
How old is the actor? | How old is the actor Depp?
Can my parrot eat apples? | Can my parrot Coco eat apples?
How do I pay in cash? | How do I only pay in cash?
What does the permit cost? | What does the weekly permit cost?
"""
PARAPHRASED = """
How can I lose weight fast? | What is the quickest way to lose weight?
Where is my order? | My order has not arrived yet, can you tell me where it is?
How do I reset my password? | I forgot my password, how can I reset it?
What's the weather like in Rome? | What is the weather in Rome like?
How do I sort a list in Python? | In Python, how do I sort a list?
What are the side effects of ibuprofen? | ibuprofen side effects
How much does it cost to fly to Japan? | How much is it to fly to Japan?
Please tell me how to bake bread | How to bake bread?
What is the difference between cats and dogs? | What is the difference between dogs and cats?
How do I cancel my subscription? | how do i cancel my subscripton
I'd like to change my address. | I would like to change the address
Is 2 weeks enough for Peru? | Are two weeks enough for Peru?
I lost my card, can you block it? | Can you block it, I lost my card?
How do I cancel? | How do I cancel? 😊
What is a 5-day course? | What is a 5 day course?
I would like a new card, how do I get one? | I need a new card, how do I receive one?
In Rome, where can I park my Fiat? | Where can I park my Fiat in Rome?
How do I pay with my Visa or my Maestro? | How do I pay with my Maestro or my Visa?
Why did the upload fail? | Why does the upload fail?
Where can I renew my passport? | How can I renew my passport?
Will there be a fee for this? | Is there a fee for this?
My parcel is late. Help! | My parcel is late.  Help!
What happened to my parcel? | What did happen to my parcel?
Why was I charged an extra fee by the machine? | The machine charged me an extra fee, why?
Where can I buy a car? | Where Can I Buy A Car?
What is 10 minus 4? | What is 10 - 4?
Is the branch quite far? | Is the branch far?
I have yet to receive my parcel | I have not received my parcel
Is smoking prohibited on board? | Is smoking banned on board?
May I bring it in May? | may I bring it in may
Is vitamin A good for me? | is vitamin a good for me
"""
EDITED = NEGATED + NUMBERED + CALCULATED + OPPOSITE + SWAPPED_ENTITY + EXCHANGED + ASKED_OTHERWISE + ADDED
DIRECTIONS = (
    "How do I get from {} to {}?",
    "What does a taxi from {} to {} cost?",
    "How do I convert {} to {}?",
    "Is {} better than {}?",
    "Can I import {} into {}?",
    "Did {} attack {} first?",
    "Why does {} owe {} money?",
)
PLACES = ("Berlin", "New York", "Kuala Lumpur", "Madrid", "Oslo")


def rows(table: str) -> list[tuple[str, str]]:
    """The pairs of a table."""
    return [(one, other) for one, _, other in (line.partition(" | ") for line in table.splitlines() if line)]


@pytest.mark.parametrize(("one", "other"), rows(EDITED))
def test_an_edit_that_changes_the_answer_is_seen(one, other):
    """A question that was edited by a word or two is objected to, whichever of the two was kept."""
    assert objection(parse(one), parse(other))
    assert objection(parse(other), parse(one))


@pytest.mark.parametrize("form", DIRECTIONS)
def test_a_reversed_direction_is_seen(form):
    """Two things that have changed places ask for another answer."""
    for one, other in itertools.permutations(PLACES, 2):
        assert objection(parse(form.format(one, other)), parse(form.format(other, one)))


@pytest.mark.parametrize(("one", "other"), rows(PARAPHRASED))
def test_a_paraphrase_passes(one, other):
    """The same question in other words is not objected to."""
    assert objection(parse(one), parse(other)) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Wie ist das Wetter in Rom und ich", "How is the weather in Rome and why"),
        ("what does `x = 1` do", "what does `x == 1` do"),
        ("explain foo(bar)[0] = {a: 1}", "explain foo(bar)[0] = {b: 1}"),
    ],
)
def test_languages_and_code_must_be_the_same(one, other):
    """An answer in another language, or on other code, is another answer."""
    assert objection(parse(one), parse(other)) in {"LANGUAGE", "CODE"}


def test_every_text_fits_itself():
    """Nothing is objected to between a text and itself, however strange it is."""
    for text in ("", "not", "5 mg", "from A to B", "`x`", "a " * 5000, "no no no 1 2 3"):
        assert objection(parse(text), parse(text)) is None


def test_the_objection_is_the_same_both_ways():
    """It does not matter which of two questions came first."""
    texts = [text for pair in rows(EDITED + PARAPHRASED) for text in pair]
    for one, other in itertools.combinations(texts, 2):
        assert objection(parse(one), parse(other)) == objection(parse(other), parse(one))


def test_alignment_finds_the_edits():
    """What the texts have in common is left out of the edits; the ratio counts it."""
    ratio, edits = align(("a", "b", "c", "d"), ("a", "x", "c", "d", "e"))

    assert ratio == pytest.approx(6 / 9)
    assert [(edit.ours, edit.theirs) for edit in edits] == [((1,), (1,)), ((), (4,))]


def test_long_texts_are_aligned_at_their_ends_only():
    """A word changed in the middle of a long text is found; two long texts without a common word cost nothing."""
    text = [f"w{n}" for n in range(300)]
    changed = [*text[:150], "other", *text[151:]]

    assert align(text, changed)[1][0].ours == (150,)
    assert align(text, [f"v{n}" for n in range(300)]) == (0.0, [])


@pytest.mark.parametrize(
    ("one", "other"), [("subscription", "subscripton"), ("recieve", "receive"), ("refund", "refudn")]
)
def test_misspelt_words_are_the_same(one, other):
    """One letter left out or two swapped in a long word is a slip."""
    assert misspelt(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("cat", "car"), ("increase", "decrease"), ("aspirin", "asparagus"), ("payer", "payee")]
)
def test_other_words_are_not_misspelt(one, other):
    """Short words, other beginnings and larger differences are other words."""
    assert not misspelt(one, other)
