"""What the town talks about: five subjects of eight topics, with four facts each, in English and Spanish.

Pure vocabulary; who says what is in ``logs.py`` and how a reply looks is in ``style.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

Bilingual = tuple[str, str]
"""English and Spanish wording of the same thing."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A kind of request.

    Attributes:
        requests: Ways to ask, with ``{x}`` for the topic.
        facts: Four fact templates with ``{x}`` (topic) and ``{a}`` (attribute).
        attributes: For each fact, the values that its ``{a}`` takes from topic to topic.
        topics: Names of the topics.
    """

    requests: tuple[str, ...]
    facts: tuple[Bilingual, Bilingual, Bilingual, Bilingual]
    attributes: tuple[tuple[Bilingual, ...], ...]
    topics: tuple[Bilingual, ...]


SUBJECTS: dict[str, Subject] = {
    "cook": Subject(
        ("How do I cook {x}?", "What is a good way to cook {x}?", "Tell me how to prepare {x}.", "I want to cook {x} tonight, any advice?"),
        (
            ("Cook the {x} for {a} minutes.", "Cocina {x} por {a} minutos."),
            ("Add some {a}.", "Agrega un poco de {a}."),
            ("Serve it with {a}.", "Sirve todo con {a}."),
            ("Store the rest in {a}.", "Guarda el resto en {a}."),
        ),
        (
            (("five", "cinco"), ("ten", "diez"), ("twenty", "veinte"), ("thirty", "treinta"), ("twelve", "doce")),
            (("salt", "sal"), ("garlic", "ajo"), ("butter", "mantequilla"), ("lemon", "limón")),
            (("bread", "pan"), ("cheese", "queso"), ("salad", "ensalada")),
            (("a jar", "un frasco"), ("the fridge", "la nevera"), ("a bowl", "un tazón")),
        ),
        (
            ("rice", "arroz"),
            ("lentils", "lentejas"),
            ("pasta", "pasta"),
            ("beans", "frijoles"),
            ("carrots", "zanahorias"),
            ("eggs", "huevos"),
            ("potatoes", "papas"),
            ("corn", "maíz"),
        ),
    ),
    "grow": Subject(
        ("How do I grow {x}?", "What do {x} need to grow well?", "Give me advice on growing {x}.", "I would like to plant {x}. How?"),
        (
            ("Plant the {x} in {a}.", "Planta {x} en {a}."),
            ("Water them every {a} days.", "Riega cada {a} días."),
            ("Use {a} as fertilizer.", "Usa {a} como abono."),
            ("Watch out for {a}.", "Cuidado con {a}."),
        ),
        (
            (("spring", "primavera"), ("autumn", "otoño"), ("March", "marzo"), ("May", "mayo")),
            (("two", "dos"), ("three", "tres"), ("four", "cuatro")),
            (("compost", "composta"), ("ash", "ceniza"), ("manure", "estiércol")),
            (("snails", "caracoles"), ("frost", "heladas"), ("birds", "pájaros"), ("ants", "hormigas")),
        ),
        (
            ("tulips", "tulipanes"),
            ("tomatoes", "tomates"),
            ("roses", "rosas"),
            ("peppers", "pimientos"),
            ("sunflowers", "girasoles"),
            ("onions", "cebollas"),
            ("melons", "melones"),
            ("violets", "violetas"),
        ),
    ),
    "clean": Subject(
        ("How do I clean {x}?", "What is the best way to clean {x}?", "My {x} are dirty. What can I do?", "Tell me how to wash {x}."),
        (
            ("Wipe the {x} with {a}.", "Limpia {x} con {a}."),
            ("Put on some {a}.", "Pon un poco de {a}."),
            ("Rinse with {a} water.", "Enjuaga con agua {a}."),
            ("Repeat it every {a}.", "Repite cada {a}."),
        ),
        (
            (("a cloth", "un paño"), ("a brush", "un cepillo"), ("a sponge", "una esponja")),
            (("soap", "jabón"), ("vinegar", "vinagre"), ("soda", "bicarbonato")),
            (("cold", "fría"), ("warm", "tibia"), ("hot", "caliente")),
            (("week", "semana"), ("month", "mes"), ("year", "año")),
        ),
        (
            ("windows", "ventanas"),
            ("shoes", "zapatos"),
            ("carpets", "alfombras"),
            ("curtains", "cortinas"),
            ("mirrors", "espejos"),
            ("pans", "sartenes"),
            ("floors", "pisos"),
            ("chairs", "sillas"),
        ),
    ),
    "learn": Subject(
        ("How do I learn {x}?", "I want to get better at {x}. How?", "What helps with learning {x}?", "Give me a plan to learn {x}."),
        (
            ("Practise {x} for {a} minutes a day.", "Practica {x} por {a} minutos al día."),
            ("Find {a}.", "Busca {a}."),
            ("Begin with {a} lessons.", "Empieza con lecciones {a}."),
            ("Track your progress every {a}.", "Mide tu avance cada {a}."),
        ),
        (
            (("ten", "diez"), ("twenty", "veinte"), ("thirty", "treinta"), ("forty", "cuarenta")),
            (("a teacher", "un maestro"), ("a club", "un club"), ("a partner", "un compañero")),
            (("easy", "fáciles"), ("short", "cortas"), ("free", "gratis")),
            (("week", "semana"), ("month", "mes"), ("day", "día")),
        ),
        (
            ("chess", "ajedrez"),
            ("piano", "piano"),
            ("painting", "pintura"),
            ("swimming", "natación"),
            ("guitar", "guitarra"),
            ("dancing", "baile"),
            ("drawing", "dibujo"),
            ("singing", "canto"),
        ),
    ),
    "visit": Subject(
        ("What should I do in {x}?", "I am going to {x}. Any tips?", "Plan a day in {x} for me.", "What is worth seeing in {x}?"),
        (
            ("In {x}, see the {a}.", "En {x}, visita {a}."),
            ("Travel by {a}.", "Viaja en {a}."),
            ("Try the local {a}.", "Prueba {a} del lugar."),
            ("Go there in {a}.", "Ve allí en {a}."),
        ),
        (
            (("museum", "el museo"), ("harbour", "el puerto"), ("market", "el mercado"), ("castle", "el castillo")),
            (("train", "tren"), ("bus", "autobús"), ("boat", "barco")),
            (("soup", "la sopa"), ("coffee", "el café"), ("fish", "el pescado")),
            (("June", "junio"), ("winter", "invierno"), ("October", "octubre")),
        ),
        (
            ("Lima", "Lima"),
            ("Oslo", "Oslo"),
            ("Cairo", "El Cairo"),
            ("Rome", "Roma"),
            ("Kyoto", "Kioto"),
            ("Lisbon", "Lisboa"),
            ("Quito", "Quito"),
            ("Athens", "Atenas"),
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Topic:
    """One thing a user can ask about."""

    subject: str
    index: int

    @property
    def name(self) -> Bilingual:
        """English and Spanish name."""
        return SUBJECTS[self.subject].topics[self.index]

    def facts(self, language: int) -> tuple[str, ...]:
        """The four facts in order; ``language`` is 0 for English, 1 for Spanish."""
        subject = SUBJECTS[self.subject]
        return tuple(
            template[language].format(x=self.name[language], a=values[(self.index * (k + 1) + k) % len(values)][language])
            for k, (template, values) in enumerate(zip(subject.facts, subject.attributes, strict=True))
        )

    def request(self, wording: int) -> str:
        """The request in one of the subject's wordings."""
        return SUBJECTS[self.subject].requests[wording].format(x=self.name[0])


TOPICS: tuple[Topic, ...] = tuple(Topic(name, index) for name, subject in SUBJECTS.items() for index in range(len(subject.topics)))
